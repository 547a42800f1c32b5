"""A run, in the order in which it happens. No arithmetic here."""

from __future__ import annotations

import os
from typing import Any

from engine import contradictions, metrics
from engine.assembly import Parts, assemble
from engine.config import Config
from engine.keeping import run_directory
from engine.keeping.board import Board
from engine.keeping.catalogue import checkpoint_number
from engine.keeping.checkpoints import Checkpoints
from engine.keeping.clock import Clock
from engine.keeping.lock import RunLock
from engine.keeping.profiler import Profiler
from engine.keeping.progress import Progress
from engine.keeping.restorer import Restorer
from engine.keeping.signals import Signals
from engine.pace import stopwatch
from engine.reporting import shown
from engine.startup import Startup
from engine.training import narration
from engine.training.advance import Advance
from engine.training.curves import Curves
from engine.training.ending import Ending
from engine.training.epoch_end import EpochEnd
from engine.training.guard import Fault, GuardError, guard_of
from engine.training.held_out import HeldOut
from engine.training.inspection import Inspector
from engine.training.timetable import Timetable
from engine.workers.company import Company
from engine.workers.crew import Crew


def train(config: Config, before: Config | None, startup: Startup, company: Company) -> int:
    """Trains, or goes on training, and writes the result.

    Args:
      config: all options.
      before: those of the run to go on with; None for a new one.
      startup: takes the start apart; all before this is in it.
      company: the other workers, if any; one of all writes.

    Returns:
      The exit status: 0 done, 130 or 143 stopped by a signal, after saving.

    Raises:
      ValueError: for bad input; nothing has been written then.
    """
    crew = Crew(company)
    with RunLock(config.run.run_dir, taken=crew.is_chief) as lock:
        parts = assemble(config, crew=crew, startup=startup)
        contradictions.refuse_for_length(config, parts.total_steps)
        with Signals() as signals:
            trainer = Trainer(parts, signals, startup, crew)
            try:
                trainer.start(lock, before)
                trainer.train()
                trainer.finish()
            finally:
                trainer.close()
            return signals.exit_status


class Trainer:
    """Composes the parts of one run.

    Args:
      parts: of the run.
      signals: asked between two calls of the graph whether to stop.
      startup: takes the start apart.
      crew: the workers; all take the same decisions, and the chief writes.
    """

    def __init__(self, parts: Parts, signals: Signals, startup: Startup, crew: Crew) -> None:
        config = parts.config
        self.parts, self.state, self.config = parts, parts.state, config
        self._signals, self._crew = signals, crew
        self._timetable = Timetable(
            steps_per_epoch=parts.steps_per_epoch,
            total_steps=parts.total_steps,
            log_every=config.keeping.log_every,
            save_every=config.keeping.checkpoint_every,
        )
        self._dir = config.run.run_dir
        chief, data = crew.is_chief, parts.data
        self._checkpoints = Checkpoints(
            self._dir, parts.state, config.keeping.keep, data=data, writes=chief
        )
        self._restorer = Restorer(self._dir, parts.state, data=data, writes=chief)
        self._saved_at = stopwatch()
        self._board = Board(self._dir, writes=chief)
        self._clock = Clock(parts.state.times, self._dir, writes=chief)
        self._curves = Curves(parts, self._board, self._clock, self._timetable)
        self._epoch_end = EpochEnd(parts, self._timetable, self._clock, self._curves)
        self._guard = guard_of(parts)
        inspector = Inspector(parts) if chief else None
        self._advance = Advance(
            parts, self._guard, self._clock, crew, startup, self._tell, inspector
        )
        self._ending = Ending(
            parts,
            HeldOut(parts, self._restorer, crew, self._tell),
            signals,
            crew,
            clock=self._clock,
            curves=self._curves,
            tell=self._tell,
        )
        self._profiler = Profiler(config.keeping.profiled, self._dir, writes=chief)
        self._interrupted = False
        self._shown = config.keeping.progress if chief else "silent"
        self._progress = Progress("off" if chief else "silent", "", 0)

    # --- the start -------------------------------------------------------------------------

    def start(self, lock: RunLock, before: Config | None) -> None:
        """Restores the newest checkpoint if there is one, and says what is about to happen.

        Args:
          lock: of the run directory.
          before: the options of the run to resume; None for a new one.

        Raises:
          ValueError: when the run cannot be resumed so; nothing has been written then.
        """
        if self._crew.is_chief:
            os.makedirs(self._dir, exist_ok=True)
            lock.take()
            if before is None and run_directory.has_checkpoint(self._dir):
                run_directory.clear(self._dir)
        newest = self._restore()
        over = bool(newest) and self._over()
        run_directory.refuse_other_length(
            self.config, before, self.parts.steps_per_epoch, int(self.state.step)
        )
        if over:
            run_directory.refuse_other_record(self.config, before)
        self._restorer.tidy()
        if self._crew.is_chief:
            run_directory.write_options(self.config)  # before anything that was made with them
        if newest is None:
            self._checkpoints.save()  # a step that goes wrong in the first epoch leads back here
        self._clock.start(int(self.state.step), counts=not over)
        self._rewind()
        stopped = bool(int(self.state.patience.stopped))
        self._progress.line(
            narration.introduction(
                self.parts,
                resumed=bool(newest),
                over=over,
                stopped=self._epoch_end.reason_to_stop() if stopped else "",
            )
        )
        self._progress = Progress(
            self._shown, "training", self.parts.total_steps, int(self.state.step)
        )
        if self._crew.is_chief and self.config.keeping.report and not over:
            shown.show(self.parts)

    def _rewind(self) -> None:
        """Drops from the curves what lies ahead of the state."""
        self._board.rewind(int(self.state.written), int(self.state.ended))

    def _restore(self) -> str | None:
        """Loads the newest checkpoint that can be loaded: the chief's choice, if any."""
        newest = None
        if self._crew.is_chief:
            newest, problems = self._restorer.newest()
            for problem in problems:
                self._progress.line(problem)
        number = self._crew.of_chief(checkpoint_number(newest))
        if not self._crew.is_chief:
            newest = self._restorer.same(number)
        self._crew.same("step to go on from", int(self.state.step))
        self._guard.load()
        return newest

    # --- the middle ------------------------------------------------------------------------

    def _over(self) -> bool:
        """Whether no step is left to take and no end of an epoch to deal with."""
        at_end = int(self.state.step) >= self.parts.total_steps and not self._at_epoch_end()
        return at_end or bool(int(self.state.patience.stopped))

    def train(self, until: int | None = None) -> None:
        """Steps and epoch ends, until the run is over or a signal comes.

        Args:
          until: a step to stop before, epoch ends that lie there left for later; None: none.
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
            self._clock.note()
            self._checkpoints.save_now()
            self._clock.beat(int(self.state.step), at_once=True)
            self._progress.line(
                f"stopped by signal {self._signals.received} at step {int(self.state.step):,}, "
                "saved; run the same command to go on"
            )

    def _at_epoch_end(self) -> bool:
        step = int(self.state.step)
        return step != int(self.state.ended) and self._timetable.ends_epoch(step)

    def _take_steps(self, until: int | None) -> None:
        """One call of the graph, then what is due at the step it reached."""
        step = int(self.state.step)
        due = self._timetable.due(step)
        self._note_profile(self._profiler.at(step))
        most = min(due.save, due.end, self._profiler.until(step))
        most = min(most, until - step) if until is not None else most
        passed = self._advance.go(most, self._timetable.points(step))
        if passed.fault is not None:
            self._go_back(passed.fault)
            return
        if self._progress.shown:
            self._progress.describe(f"epoch {self._epoch()}/{self._timetable.epochs}")
            self._progress.advance(passed.steps, self._means(self.state.sums.numpy()))
        # An epoch's end writes its point and saves by itself, see `_end_epoch`.
        if points := [each for each in passed.points if self._timetable.logs(each.step)]:
            self._curves.passed(points)
        reached = step + passed.steps
        if self._timetable.ends_epoch(reached):
            return
        if reached == self.parts.total_steps:
            self._save()
        elif passed.steps == due.save or self._time_to_save():
            self._save(soon=True)

    def _note_profile(self, line: str) -> None:
        if line:
            self._progress.line(line)

    def _go_back(self, fault: Fault) -> None:
        """To the last checkpoint, from where the run goes on without a step."""
        reached = int(self.state.step)
        self._checkpoints.finish()
        self._restore()
        try:
            self._guard.leave_out(fault)
        except GuardError:
            self._advance.record(fault)
            raise
        step = int(self.state.step)
        self._clock.went_back(reached - step, step)
        self._checkpoints.save_now()
        self._board.close()
        self._rewind()
        self._progress.set(step)
        self._progress.line(
            f"step {fault.step:,} went wrong ({fault.why.words}): back to step {step:,}, to go on "
            "without it"
        )

    def _end_epoch(self) -> None:
        """Deals with the end of an epoch, and saves what came of it before it says so."""
        ended = self._epoch_end.run(self._stop_asked)
        if ended is None:
            self._interrupted = True
            return
        self._save(best=ended.is_best)
        for line in ended.lines:
            self._progress.line(line)

    def _time_to_save(self) -> bool:
        seconds = self.config.keeping.checkpoint_seconds
        due = bool(seconds) and stopwatch() - self._saved_at >= seconds
        return bool(self._crew.of_chief(int(due))) if seconds else False

    def _save(self, *, best: bool = False, soon: bool = False) -> None:
        self._clock.note()
        self._checkpoints.save(best=best, soon=soon)
        self._saved_at = stopwatch()

    # --- the end ---------------------------------------------------------------------------

    def finish(self) -> None:
        """Evaluates the final weights on what was held out; draws, and writes result.json last."""
        self._note_profile(self._profiler.stop())
        if self._interrupted:
            return
        step = int(self.state.step)
        self._clock.beat(step, at_once=True)
        self._checkpoints.finish()
        self._progress.describe("evaluating")
        if not self._timetable.ends_epoch(step):
            lines = self._epoch_end.within(self._stop_asked)
            for line in lines or ():
                self._progress.line(line)
            self._interrupted = lines is None
        whole = not self._interrupted and self._ending.run(
            epoch=self._epoch(),
            metric=self._epoch_end.monitor.metric,
            left_out=[each for each in sorted(self._guard.left_out) if each < step],
        )
        if not whole:
            self._progress.line(
                f"stopped by signal {self._signals.received} after the last step; run the same "
                "command to evaluate"
            )

    def close(self) -> None:
        """Finishes the files, takes the bar away and stops reading ahead."""
        self.parts.close()
        self._checkpoints.close()
        self._progress.close()
        self._board.close()

    # --- words -----------------------------------------------------------------------------

    def _tell(self, line: str) -> None:
        self._progress.line(line)

    def _stop_asked(self) -> bool:
        return bool(self._signals.agree(self._crew.most))

    def _means(self, sums: Any) -> dict[str, float | int]:
        return metrics.step_means(sums, self.parts.task.metrics)

    def _epoch(self) -> int:
        return self._timetable.epoch(int(self.state.step))
