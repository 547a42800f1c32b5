"""Kills runs, each a random number of times, until a number of kills is reached."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import engine.trainer.command  # noqa: F401 - for the children
from tests.chaos.victim import PLACES, Ended, Instant, run
from tests.sameness import differences

REPOSITORY = Path(__file__).parents[2]
OPTIONS = (
    "--dataset=digits",
    "--model=cnn",
    "--augment=shift:1,rotation:10",
    "--ema=0.9",
    "--global_batch_size=48",
    "--learning_rate=0.003",
    "--epochs=9",
    "--patience=2",
    "--min_delta=0.02",  # stops early
    "--restore_best",
    "--keep_best=3",
    "--log_every=7",
    "--checkpoint_every=11",
    "--progress=off",
    "--report=false",  # only for kills during a report, which takes as long as the rest of the run
)
_FRESH = 0.05  # share of kills in a new process, which include its import of TensorFlow
_AGAIN = 0.6  # share of killed runs that is killed again
_IMPORT = 4.0  # additional seconds of a new process


class Ordeal:
    """Test harness that kills runs, resumes each, and compares it with an uninterrupted run.

    Args:
      place: directory of the runs.
      signal_name: KILL, TERM or INT.
      seed: seed of the random instants.
      options: options of the command, in addition to OPTIONS.
    """

    def __init__(self, place: Path, *, signal_name: str, seed: int, options: list[str]) -> None:
        self._place, self._random = place, np.random.default_rng(seed)
        self._number = int(signal.Signals[f"SIG{signal_name}"])
        self._options = [*OPTIONS, f"--cache_dir={place / 'cache'}", *options]
        self._hit: Counter[str] = Counter()
        self._seconds = 0.0

    def go(self, kills: int, tell: Callable[[str], None] = lambda line: None) -> list[str]:
        """Kills runs at random instants, and resumes each run to the end.

        Args:
          kills: total number of kills.
          tell: called periodically with a line on the progress.

        Returns:
          The differences from the uninterrupted run, one line for each run that differs.
        """
        untouched = self._untouched(tell)
        failures: list[str] = []
        runs = done = 0
        while done < kills:
            runs += 1
            made, problem = self._tormented(self._place / f"run-{runs}", untouched, kills - done)
            done += made
            if problem:
                failures.append(f"run {runs}, {made} kills: {problem}")
                tell(f"DIFFERS {failures[-1]}")
            tell(f"{done} of {kills} kills in {runs} runs; {len(failures)} differ")
        phases = ", ".join(f"{phase} {count}" for phase, count in sorted(self._hit.items()))
        tell(f"instants: {phases}")
        same = runs - len(failures)
        tell(f"{same} of {runs} runs end as the untouched one, after {done} kills")
        return failures

    def sweep(self, times: int, tell: Callable[[str], None] = lambda line: None) -> list[str]:
        """Kills a run on entry, and one on exit, of the first calls of each function in `PLACES`.

        Args:
          times: number of calls of each function.
          tell: called periodically with a line on the progress.

        Returns:
          The differences from the uninterrupted run, one line for each run that differs.
        """
        untouched = self._untouched(tell)
        failures: list[str] = []
        instants = [
            Instant(phase, place, nth, entered)
            for phase, places in PLACES.items()
            for place, nth in itertools.product(range(len(places)), range(1, times + 1))
            for entered in (True, False)
        ]
        for runs, instant in enumerate(instants, 1):
            run_dir = self._place / f"run-{runs}"
            killed = self._struck(run_dir, instant).status != 0
            if killed and (problem := self._ended(run_dir, untouched, [instant])):
                failures.append(f"run {runs}: {problem}")
                tell(f"DIFFERS {failures[-1]}")
            words = "killed" if killed else "over before that"
            tell(f"{runs} of {len(instants)}, {instant.phase} {instant[1:4]}: {words}")
        tell(f"{len(instants) - len(failures)} of {len(instants)} runs end as the untouched one")
        return failures

    def _tormented(self, run_dir: Path, untouched: Path, most: int) -> tuple[int, str]:
        """Kills a run up to `most` times, resumes it to the end and compares it with `untouched`.

        Returns:
          The number of kills, and the problem, or "" if there is none.
        """
        made, history = 0, []
        while made < most:
            instant = self._instant()
            ended = self._struck(run_dir, instant)
            if ended.status == 0:  # the run ended before the instant
                break
            if ended.status not in (-self._number, 128 + self._number):
                return made, f"exit status {ended.status} at {instant}: {ended.said[-800:]}"
            made += 1
            self._hit[instant.phase] += 1
            history.append(instant)
            if self._random.random() > _AGAIN:
                break
        return made, self._ended(run_dir, untouched, history)

    def _untouched(self, tell: Callable[[str], None]) -> Path:
        """Trains without interruption, and measures the duration; returns the run directory."""
        run_dir = self._place / "untouched"
        # The first run decodes the examples and fills the cache.
        run(self._arguments(run_dir), self._place / "said", self._number, None)
        shutil.rmtree(run_dir)
        started = time.monotonic()
        ended = run(self._arguments(run_dir), self._place / "said", self._number, None)
        self._seconds = time.monotonic() - started
        assert ended.status == 0, ended.said
        tell(f"untouched: {self._seconds:.1f} s; {ended.said.splitlines()[-1]}")
        return run_dir

    def _ended(self, run_dir: Path, untouched: Path, history: list[Instant]) -> str:
        """Resumes a run to the end and compares it with `untouched`; returns the problem or "".

        Deletes the run directory if nothing differs. `history` holds the instants of the kills.
        """
        arguments = self._arguments(run_dir, *history)
        ended = run(arguments, self._place / "said", self._number, None)
        if ended.status:
            return f"exit status {ended.status} after {history}: {ended.said[-800:]}"
        found = differences(untouched, run_dir)
        if "--report" in arguments and not (run_dir / "report.html").exists():
            found.append("no report.html")
        if not found:
            shutil.rmtree(run_dir)
        return f"{', '.join(found[:8])} after {history}" if found else ""

    def _struck(self, run_dir: Path, instant: Instant) -> Ended:
        arguments, said = self._arguments(run_dir, instant), self._place / "said"
        if instant.phase != "a fresh process":
            return run(arguments, said, self._number, instant)
        with open(said, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "run.py", *arguments], cwd=REPOSITORY, stdout=file, stderr=file
            )
            try:
                process.wait(instant.seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(self._number)
            return Ended(process.wait(300), said.read_text())

    def _instant(self) -> Instant:
        random = self._random
        if random.random() < _FRESH:
            return Instant("a fresh process", seconds=random.uniform(0, self._seconds + _IMPORT))
        phase = str(random.choice([*PLACES, "any", "any"]))
        if phase == "any":
            return Instant("any", seconds=random.uniform(0, self._seconds))
        # Log-uniform for frequent calls, so that early and late ones are equally likely.
        nth = int(np.ceil(np.exp(random.uniform(0, 4))) if phase in _OFTEN else 1)
        place = int(random.integers(len(PLACES[phase])))
        return Instant(phase, place, nth, bool(random.integers(2)))

    def _arguments(self, run_dir: Path, *instants: Instant) -> list[str]:
        reports = any(instant.phase == "report" for instant in instants)
        return [*self._options, f"--run_dir={run_dir}", *(["--report"] if reports else [])]


_OFTEN = ("loop", "save", "moving files", "evaluation", "logging")
