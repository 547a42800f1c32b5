"""Trains a run: runs its start, steps, epoch ends, rollbacks and final evaluation."""

from __future__ import annotations

import os
from typing import Any

from engine.assembly import run_directory
from engine.assembly.parts import Parts, assemble
from engine.checkpoint.catalog import checkpoint_number
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.config import compatibility
from engine.config.schema import Config
from engine.core import metrics
from engine.core.steps_per_loop import stopwatch
from engine.distributed.cluster import Cluster
from engine.distributed.collectives import HostCollectives
from engine.logging.metric_writer import MetricWriter
from engine.logging.profiler import Profiler
from engine.logging.progress import Progress
from engine.logging.throughput import ThroughputMeter
from engine.reporting import tensorboard_report
from engine.runtime.lock import RunLock
from engine.runtime.signals import Signals
from engine.runtime.startup import Startup
from engine.trainer import console
from engine.trainer.bad_batch_dump import BadBatchRecorder
from engine.trainer.bad_steps import BadStep, TooManyBadStepsError, bad_step_detector
from engine.trainer.epoch_end import EpochEnd
from engine.trainer.final_evaluation import FinalEvaluation
from engine.trainer.finalize import Finalizer
from engine.trainer.loop_runner import LoopRunner
from engine.trainer.train_logging import TrainLogger
from engine.trainer.triggers import Triggers


def train(config: Config, before: Config | None, startup: Startup, cluster: Cluster) -> int:
    """Trains a new run or resumes one, and writes result.json.

    Args:
      config: all options.
      before: options of the run to resume; None for a new run.
      startup: startup timings, which include the time before this call.
      cluster: cluster of the workers; only the chief writes files.

    Returns:
      The exit status: 0 if the run is finished; 128 + the signal number, such as 130 or 143, if a
      signal stopped it after a checkpoint was saved.

    Raises:
      ValueError: for invalid options or data; nothing has been written.
    """
    collectives = HostCollectives(cluster)
    with RunLock(config.run.run_dir, taken=collectives.is_chief) as lock:
        parts = assemble(config, collectives=collectives, startup=startup)
        compatibility.check_length_options(config, parts.total_steps)
        with Signals() as signals:
            trainer = Trainer(parts, signals, startup, collectives)
            try:
                trainer.start(lock, before)
                trainer.train()
                trainer.finish()
            finally:
                trainer.close()
            return signals.exit_status


class Trainer:
    """Runs the phases of one run: start, training and end.

    Args:
      parts: components of the run.
      signals: signals received; checked between two calls of the graph.
      startup: startup timings.
      collectives: collectives of the workers; all workers make the same decisions, and only the
        chief writes files.
    """

    def __init__(
        self, parts: Parts, signals: Signals, startup: Startup, collectives: HostCollectives
    ) -> None:
        config = parts.config
        self.parts, self.state, self.config = parts, parts.state, config
        self._signals, self._collectives = signals, collectives
        self._triggers = Triggers(
            steps_per_epoch=parts.steps_per_epoch,
            total_steps=parts.total_steps,
            log_every=config.logging.log_every,
            save_every=config.checkpoints.checkpoint_every,
        )
        self._dir = config.run.run_dir
        chief, data = collectives.is_chief, parts.data
        self._checkpoints = CheckpointManager(
            self._dir, parts.state, config.checkpoints.keep, data=data, writes=chief
        )
        self._restorer = Restorer(self._dir, parts.state, data=data, writes=chief)
        self._saved_at = stopwatch()
        self._metric_writer = MetricWriter(self._dir, writes=chief)
        self._meter = ThroughputMeter(parts.state.timing, self._dir, writes=chief)
        self._train_logger = TrainLogger(parts, self._metric_writer, self._meter, self._triggers)
        self._epoch_end = EpochEnd(parts, self._triggers, self._meter, self._train_logger)
        self._detector = bad_step_detector(parts)
        recorder = BadBatchRecorder(parts) if chief else None
        self._loop_runner = LoopRunner(
            parts, self._detector, self._meter, collectives, startup, self._tell, recorder
        )
        self._finalizer = Finalizer(
            parts,
            FinalEvaluation(parts, self._restorer, collectives, self._tell),
            signals,
            collectives,
            meter=self._meter,
            train_logger=self._train_logger,
            tell=self._tell,
        )
        self._profiler = Profiler(config.logging.profiled, self._dir, writes=chief)
        self._interrupted = False
        self._shown = config.logging.progress if chief else "silent"
        self._progress = Progress("off" if chief else "silent", "", 0)

    # --- start -----------------------------------------------------------------------------

    def start(self, lock: RunLock, before: Config | None) -> None:
        """Restores the newest checkpoint if there is one, and prints the introduction.

        Args:
          lock: lock of the run directory.
          before: options of the run to resume; None for a new run.

        Raises:
          ValueError: if the run cannot be resumed with these options; nothing has been written.
        """
        if self._collectives.is_chief:
            os.makedirs(self._dir, exist_ok=True)
            lock.take()
            if before is None and run_directory.has_checkpoint(self._dir):
                run_directory.clear(self._dir)
        newest = self._restore()
        over = bool(newest) and self._over()
        run_directory.check_length(
            self.config,
            before,
            self.parts.steps_per_epoch,
            int(self.state.step),
            schedule_depends=self.parts.schedule.depends_on_length,
        )
        if over:
            run_directory.check_logging_options(self.config, before)
        self._restorer.tidy()
        if self._collectives.is_chief:
            run_directory.write_options(self.config)  # before any result of these options
        if newest is None:
            self._checkpoints.save()  # for the rollback of a bad step in the first epoch
        self._meter.start(int(self.state.step), counts=not over)
        self._rewind()
        stopped = bool(int(self.state.patience.stopped))
        self._progress.line(
            console.introduction(
                self.parts,
                resumed=bool(newest),
                over=over,
                stopped=self._epoch_end.reason_to_stop() if stopped else "",
            )
        )
        self._progress = Progress(
            self._shown, "training", self.parts.total_steps, int(self.state.step)
        )
        if self._collectives.is_chief and self.config.report.report and not over:
            tensorboard_report.show(self.parts)

    def _rewind(self) -> None:
        """Drops the metrics logged after the step of the state."""
        self._metric_writer.rewind(
            int(self.state.last_logged_step), int(self.state.last_epoch_end_step)
        )

    def _restore(self) -> str | None:
        """Restores the newest intact checkpoint, chosen by the chief; returns its path, or None."""
        newest = None
        if self._collectives.is_chief:
            newest, problems = self._restorer.newest()
            for problem in problems:
                self._progress.line(problem)
        number = self._collectives.broadcast(checkpoint_number(newest))
        if not self._collectives.is_chief:
            newest = self._restorer.same(number)
        self._collectives.same("step to resume from", int(self.state.step))
        self._detector.load()
        return newest

    # --- training --------------------------------------------------------------------------

    def _over(self) -> bool:
        """Returns whether training is complete: all steps and epoch ends done, or stopped early."""
        at_end = int(self.state.step) >= self.parts.total_steps and not self._at_epoch_end()
        return at_end or bool(int(self.state.patience.stopped))

    def train(self, until: int | None = None) -> None:
        """Takes steps and runs epoch ends, until training is complete or a signal is received.

        Args:
          until: step to stop at, before any epoch end there; None: train to the end.
        """
        while not self._over() and not self._interrupted and int(self.state.step) != until:
            self._checkpoints.check()
            if self._stop_asked():
                self._interrupted = True
            elif self._at_epoch_end():
                self._end_epoch()
            else:
                self._take_steps(until)
        if self._interrupted:
            self._meter.note()
            self._checkpoints.save_and_wait()
            self._meter.beat(int(self.state.step), at_once=True)
            self._progress.line(
                f"stopped by signal {self._signals.received} at step {int(self.state.step):,}, "
                "saved; run the same command to resume"
            )

    def _at_epoch_end(self) -> bool:
        step = int(self.state.step)
        return step != int(self.state.last_epoch_end_step) and self._triggers.ends_epoch(step)

    def _take_steps(self, until: int | None) -> None:
        """Runs one call of the training loop, then logs and saves a checkpoint if due."""
        step = int(self.state.step)
        due = self._triggers.due(step)
        self._note_profile(self._profiler.at(step))
        max_steps = min(due.save, due.end, self._profiler.until(step))
        max_steps = min(max_steps, until - step) if until is not None else max_steps
        passed = self._loop_runner.go(max_steps, self._triggers.points(step))
        if passed.bad_step is not None:
            self._go_back(passed.bad_step)
            return
        if self._progress.shown:
            self._progress.describe(f"epoch {self._epoch()}/{self._triggers.epochs}")
            self._progress.advance(passed.steps, self._means(self.state.sums.numpy()))
        # At the end of an epoch, `_end_epoch` logs and saves.
        if points := [each for each in passed.points if self._triggers.logs(each.step)]:
            self._train_logger.passed(points)
        reached = step + passed.steps
        if self._triggers.ends_epoch(reached):
            return
        if reached == self.parts.total_steps:
            self._save()
        elif passed.steps == due.save or self._time_to_save():
            self._save(soon=True)

    def _note_profile(self, line: str) -> None:
        if line:
            self._progress.line(line)

    def _go_back(self, bad_step: BadStep) -> None:
        """Rolls back to the last checkpoint, and adds the bad step to the steps to skip."""
        reached = int(self.state.step)
        self._checkpoints.finish()
        self._restore()
        try:
            self._detector.leave_out(bad_step)
        except TooManyBadStepsError:
            self._loop_runner.record(bad_step)
            raise
        step = int(self.state.step)
        self._meter.roll_back(reached - step, step)
        self._checkpoints.save_and_wait()
        self._metric_writer.close()
        self._rewind()
        self._progress.set(step)
        self._progress.line(
            f"bad step {bad_step.step:,} ({bad_step.why.words}): rolled back to step {step:,}; "
            "it is skipped from now on"
        )

    def _end_epoch(self) -> None:
        """Runs the end of an epoch, and saves a checkpoint before it prints the results."""
        ended = self._epoch_end.run(self._stop_asked)
        if ended is None:
            self._interrupted = True
            return
        self._save(best=ended.is_best)
        for line in ended.lines:
            self._progress.line(line)

    def _time_to_save(self) -> bool:
        seconds = self.config.checkpoints.checkpoint_seconds
        due = bool(seconds) and stopwatch() - self._saved_at >= seconds
        return bool(self._collectives.broadcast(int(due))) if seconds else False

    def _save(self, *, best: bool = False, soon: bool = False) -> None:
        self._meter.note()
        self._checkpoints.save(best=best, soon=soon)
        self._saved_at = stopwatch()

    # --- end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Evaluates the final or best weights, writes the report, and writes result.json last."""
        self._note_profile(self._profiler.stop())
        if self._interrupted:
            return
        step = int(self.state.step)
        self._meter.beat(step, at_once=True)
        self._checkpoints.finish()
        self._progress.describe("evaluating")
        if not self._triggers.ends_epoch(step):
            lines = self._epoch_end.within(self._stop_asked)
            for line in lines or ():
                self._progress.line(line)
            self._interrupted = lines is None
        whole = not self._interrupted and self._finalizer.run(
            epoch=self._epoch(),
            metric=self._epoch_end.monitor.metric,
            left_out=[each for each in sorted(self._detector.left_out) if each < step],
        )
        if not whole:
            self._progress.line(
                f"stopped by signal {self._signals.received} after the last step; run the same "
                "command to evaluate"
            )

    def close(self) -> None:
        """Stops prefetching, waits for pending saves, and closes progress bar and event files."""
        self.parts.close()
        self._checkpoints.close()
        self._progress.close()
        self._metric_writer.close()

    # --- helpers ---------------------------------------------------------------------------

    def _tell(self, line: str) -> None:
        self._progress.line(line)

    def _stop_asked(self) -> bool:
        return bool(self._signals.agree(self._collectives.max))

    def _means(self, sums: Any) -> dict[str, float | int]:
        return metrics.step_means(sums, self.parts.task.metrics)

    def _epoch(self) -> int:
        return self._triggers.epoch(int(self.state.step))
