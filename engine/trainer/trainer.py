"""The phases of training a run: start, steps, evaluations, rollbacks and the end."""

from __future__ import annotations

import os

from engine.assembly import run_directory
from engine.assembly.parts import Parts
from engine.config.option import written
from engine.config.schema import Config
from engine.core import metrics
from engine.core.early_stopping import OPTIONS
from engine.distributed.collectives import HostCollectives
from engine.logging.metric_writer import MetricWriter
from engine.logging.profiler import Profiler
from engine.logging.progress import Progress
from engine.logging.throughput import ThroughputMeter
from engine.reporting import tensorboard_report
from engine.runtime.lock import RunLock
from engine.runtime.scalars import as_int64
from engine.runtime.signals import Signals
from engine.runtime.startup import Startup
from engine.trainer import console
from engine.trainer.bad_batch_dump import BadBatchRecorder
from engine.trainer.bad_steps import BadStep, bad_step_detector
from engine.trainer.compilation_cache import CompilationCache
from engine.trainer.evaluator import Evaluator
from engine.trainer.finalize import Finalizer
from engine.trainer.loop_runner import LoopRunner
from engine.trainer.restoration import Restoration
from engine.trainer.run_checkpoints import RunCheckpoints
from engine.trainer.stop_conditions import StopConditions
from engine.trainer.train_logging import TrainLogger
from engine.trainer.triggers import Triggers


class Trainer:
    """Trainer of one run, in the phases `start`, `train` and `finish`; then `close` must be called.

    Signals are checked between two calls of the graph. All workers make the same decisions, and
    only the chief writes files.

    Raises:
      ValueError: if `--monitor` names a metric or split that the run does not have.
    """

    def __init__(
        self,
        parts: Parts,
        signals: Signals,
        startup: Startup,
        collectives: HostCollectives,
        programs: CompilationCache | None = None,
    ) -> None:
        config, chief = parts.config, collectives.is_chief
        self.parts, self.state, self.config = parts, parts.state, config
        self._signals, self._collectives, self._startup = signals, collectives, startup
        self._programs = programs or CompilationCache(config)
        self._triggers = Triggers(
            steps_per_epoch=parts.steps_per_epoch,
            total_steps=parts.total_steps,
            evaluate_every=config.evaluation.interval(parts.steps_per_epoch),
            log_every=config.logging.log_every,
            save_every=config.checkpoints.checkpoint_every,
            keep_every=config.checkpoints.keep_every,
        )
        self._dir = config.run.run_dir
        self._metric_writer = MetricWriter(
            self._dir, writes=chief, validation_sets=tuple(parts.source.validation_sets)
        )
        self._meter = ThroughputMeter(parts.state.timing, self._dir, writes=chief)
        self._checkpoints = RunCheckpoints(parts, self._triggers, self._meter, collectives)
        self._train_logger = TrainLogger(parts, self._metric_writer, self._meter, self._triggers)
        self._stops = StopConditions(parts, self._triggers, signals, collectives, startup)
        self._evaluator = Evaluator(
            parts, self._triggers, self._meter, self._train_logger, self._stops.requested
        )
        self._detector = bad_step_detector(parts)
        recorder = BadBatchRecorder(parts) if chief else None
        self._loop_runner = LoopRunner(
            parts,
            self._detector,
            self._meter,
            collectives,
            startup,
            self._print_line,
            recorder,
            compiled=self._programs.store,
        )
        self._restoration = Restoration(
            parts.state,
            self._checkpoints,
            self._detector,
            self._loop_runner,
            self._meter,
            self._metric_writer,
            self._print_line,
        )
        self._profiler = Profiler(config.logging.profiled, self._dir, writes=chief)
        self._interrupted = False
        self._stop_reason = ""  # why this command ended training, if by time
        self._progress = Progress("off" if chief else "silent", "", 0)

    def _trace(self) -> None:
        """Traces the functions of the run, and restores their programs if XLA compiled them before.

        Records the duration as the startup part "trace".
        """
        self._programs.before_trace()
        self.parts.trace()
        self._programs.restore(self.parts)
        self._startup.ended("trace")

    def start(self, lock: RunLock, before: Config | None) -> None:
        """Prepares the run directory and the training state, and prints the introduction.

        Restores the newest checkpoint, or saves the initial state of a new run. Traces the
        functions, unless the run is complete. Writes the options to config.flags, and removes
        result.json and the metrics logged after the restored step.

        Args:
          lock: lock of the run directory, which is acquired.
          before: options of the run to resume; None for a new run.

        Raises:
          ValueError: if the run directory is in use, if the run cannot be resumed with these
            options or this data, or if the model, task, optimizer or a metric is found invalid when
            the functions are traced; neither options nor checkpoints have been written.
          OSError: if a file cannot be written, or no checkpoint of the run can be loaded.
          RuntimeError: if TensorFlow fails, or if the workers do not restore the same step.
        """
        parts, chief = self.parts, self._collectives.is_chief
        if before is None:  # code that fails leaves nothing behind
            self._trace()
        if chief:
            os.makedirs(self._dir, exist_ok=True)
            lock.take()
            if before is None and run_directory.has_checkpoint(self._dir):
                run_directory.clear(self._dir)
        resumed = self._restoration.restore()
        step = int(self.state.step)
        complete = resumed and self._stops.is_complete()
        run_directory.check_length(
            self.config,
            before,
            parts.steps_per_epoch,
            step,
            needs_length=parts.needs_length,
        )
        if complete:
            run_directory.check_logging_options(self.config, before)
        elif before is not None:
            self._startup.ended("restore")
            self._trace()
        self._checkpoints.tidy(resumed)
        if self._collectives.is_chief:
            run_directory.write_options(self.config)  # before any result of these options
        if not resumed:
            if self.config.evaluation.evaluate_at_start:
                self.state.last_evaluation_step.assign(as_int64(-1))
            self._checkpoints.save_initial()  # for the rollback of a bad step in the first epoch
        self._stops.first_step = step
        self._meter.start(step, counts=not complete)
        self._restoration.rewind()
        stopped = self._evaluator.reason_to_stop()
        self._print_line(
            console.introduction(parts, resumed=resumed, over=complete, stopped=stopped)
        )
        mode = self.config.logging.progress if chief else "silent"
        self._progress = Progress(mode, "training", parts.total_steps, step)
        if chief and self.config.report.report and not complete:
            tensorboard_report.show(parts)

    def train(self, until: int | None = None) -> None:
        """Takes steps and evaluates until training is complete or `--max_hours` have passed.

        A signal stops training, too. After a signal or `--max_hours`, a checkpoint is saved.

        Args:
          until: step to stop at, before an evaluation at that step; None: train to the end.

        Raises:
          OSError: if a file cannot be read or written.
          ValueError: if damaged data, or an invalid metric in an evaluation, is found.
          RuntimeError: if TensorFlow fails, or for more bad steps than the run may skip.
        """
        while not (self._interrupted or self._stops.is_complete() or int(self.state.step) == until):
            self._checkpoints.check()
            if self._stops.requested():
                self._interrupted = True
            elif self._stops.evaluation_due():
                self._evaluate()
            elif self._stops.time_is_up():
                self._stop_by_time()
                break
            else:
                self._take_steps(until)
        if self._interrupted:
            step = int(self.state.step)
            self._meter.note()
            self._checkpoints.save_and_wait()
            self._meter.beat(step, at_once=True)
            self._print_line(
                f"stopped by signal {self._signals.received} at step {step:,}, saved; run the same "
                "command to resume"
            )

    def _stop_by_time(self) -> None:
        """Saves a checkpoint unless the evaluation of this step did; prints why training ends."""
        step = int(self.state.step)
        if not self._triggers.evaluates(step):
            self._checkpoints.save()
        self._stop_reason = f"--max_hours={written(self.config.stopping.max_hours)} have passed"
        self._print_line(
            f"training ended at step {step:,}, saved: {self._stop_reason}; run the same command "
            "to continue"
        )

    def _take_steps(self, until: int | None) -> None:
        """Takes steps in one call of the graph, or skips one step; then logs, and saves if due.

        Takes no step beyond step `until`, unless it is None. After a bad step, only rolls back to
        the last checkpoint.
        """
        step = int(self.state.step)
        due = self._triggers.due(step)
        self._print_line(self._profiler.at(step))
        max_steps = min(due.save, due.end, self._profiler.until(step))
        max_steps = min(max_steps, until - step) if until is not None else max_steps
        passed = self._loop_runner.run(max_steps, self._triggers.points(step))
        if passed.bad_step is not None:
            self._roll_back(passed.bad_step)
            return
        reached = step + passed.steps
        if self._progress.shown:
            epoch = self._triggers.epoch(reached)
            self._progress.describe(f"epoch {epoch}/{self._triggers.epochs}")
            of = self.parts.task.metrics
            means = metrics.step_means(self.state.sums.numpy(), of)
            self._progress.advance(passed.steps, metrics.brief(means, of))
        if points := [each for each in passed.points if self._triggers.logs(each.step)]:
            self._train_logger.passed(points)
        if self._triggers.evaluates(reached):
            return  # `_evaluate` logs and saves
        if reached == self.parts.total_steps:
            self._checkpoints.save()
        elif passed.steps == due.save or self._checkpoints.time_is_up():
            self._checkpoints.save(soon=True)

    def _roll_back(self, bad_step: BadStep) -> None:
        """Rolls back to the last checkpoint; the bad step is skipped from now on.

        Raises:
          TooManyBadStepsError: if the run may not skip one more bad step.
        """
        step = self._restoration.roll_back(bad_step)
        self._progress.set(step)
        self._print_line(
            f"bad step {bad_step.step:,} ({bad_step.reason.label}): rolled back to step {step:,}; "
            "it is skipped from now on"
        )

    def _evaluate(self) -> None:
        """Evaluates and logs, saves a checkpoint, and then prints the results.

        If a signal stops the evaluation, sets `_interrupted` and does nothing else.
        """
        ended = self._evaluator.run()
        if ended is None:
            self._interrupted = True
            return
        self._checkpoints.save(best=bool(ended.place))
        for line in ended.lines:
            self._print_line(line)

    def finish(self) -> None:
        """Evaluates the held-out splits; writes result.json and, if configured, the report.

        If a signal has stopped training, only ends profiling. A signal during the evaluation or the
        report stops them.

        Raises:
          OSError: if a file cannot be written, or the best checkpoint cannot be loaded.
          ValueError: if the report finds damaged data, or if a metric fails.
          RuntimeError: if TensorFlow fails.
        """
        self._print_line(self._profiler.stop())
        if self._interrupted:
            return
        step = int(self.state.step)
        self._meter.beat(step, at_once=True)
        self._checkpoints.finish()
        self._progress.describe("evaluating")
        line: str | None = ""
        if not self._triggers.evaluates(step):
            line = self._evaluator.run_at_end()
            self._print_line(line or "")
        finalizer = Finalizer(
            self.parts,
            self._checkpoints.restorer,
            self._signals,
            self._collectives,
            self._meter,
            self._train_logger,
            self._print_line,
        )
        finished = line is not None and finalizer.run(
            epoch=self._triggers.epoch(step),
            metric=self._evaluator.monitor.metric,
            stopped=self._stopped(),
            left_out=[each for each in sorted(self._detector.left_out) if each < step],
        )
        if not finished:
            self._print_line(
                f"stopped by signal {self._signals.received} after the last step; run the same "
                "command to evaluate"
            )

    def _stopped(self) -> tuple[str, str]:
        """Returns the option that ended training early, and the reason as text.

        Both are "" if training ended at its full length.
        """
        if self._stop_reason:
            return "max_hours", self._stop_reason
        return OPTIONS[self._evaluator.stopped], self._evaluator.reason_to_stop()

    def close(self) -> None:
        """Stops prefetching, waits for pending saves, and closes progress bar and event files."""
        self.parts.close()
        self._checkpoints.close()
        self._progress.close()
        self._metric_writer.close()

    def _print_line(self, line: str) -> None:
        if line:
            self._progress.line(line)
