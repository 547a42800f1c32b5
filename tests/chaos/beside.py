"""Runs every mode during a training that saves checkpoints continually, and checks the output.

    python -m tests.chaos.beside --times=100

The training saves more often than every 0.1 s, keeps two checkpoints, and nearly every epoch is the
best so far, so that files are deleted continually. Every mode must exit with status 0. A mode that
reads a checkpoint must name a step that the training saved. For two of ten runs of such a mode, the
output must equal that from a run directory with only that checkpoint. Each training must end
bitwise equal to an undisturbed training; then another training starts. The exit status is 1 if
anything fails.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.runtime.startup import import_tensorflow
from tests.chaos.victim import HANG, Ended, begin

TRAINING = (
    "--dataset=digits",
    "--model=logistic",
    "--optimizer=sgd",
    "--learning_rate=0.005",
    "--monitor=train_loss",  # decreases in nearly every epoch
    "--checkpoint_every=5",
    "--keep=2",
    "--progress=off",
)
_TOLD = re.compile(r"the (newest|best) weights, of step ([\d,]+), (\S+?),? ?(?:on .*)?$", re.M)
_PICTURES = 5
_AS_ALONE = 10  # of so many runs of a mode, the output of the first two is compared


class Mode(NamedTuple):
    """A mode that reads a checkpoint of a run.

    Attributes:
      options: options of the command.
      answers: glob patterns of the output files in the run directory that are compared: those that
        do not depend on the time.
    """

    options: tuple[str, ...]
    answers: tuple[str, ...]


READING = {
    "evaluate": Mode(("--mode=evaluate",), ("evaluation/*/*.csv",)),
    "predict a split": Mode(
        ("--mode=predict", "--split=test[:100]"), ("predictions/predictions.json",)
    ),
    "predict files": Mode(
        ("--mode=predict", "--inputs=PICTURES"), ("predictions/predictions.json",)
    ),
    "export": Mode(("--mode=export",), ("export/variables/variables.data*",)),
    "report": Mode(("--mode=report",), ("test_predictions.csv",)),
}
# Modes that read no checkpoint -> how often each runs, and its options.
OTHERS = {
    "verify": (3, ("--mode=verify",)),
    "benchmark": (3, ("--mode=benchmark", "--benchmark_steps=30")),
    "tune": (1, ("--mode=tune", "--tuned_flags=TUNED")),
    "inspect": (3, ("--mode=inspect", "--inspect_path=PAGE", "--inspect_steps=5")),
}


def main() -> int:
    """Runs the modes during trainings and prints a table; returns 1 if anything fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.beside", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--times", type=int, default=100, help="of each mode (default 100)")
    parser.add_argument("--epochs", type=int, default=300, help="of each training (default 300)")
    parser.add_argument("--only", default="", help="modes, with commas (default: all)")
    asked = parser.parse_args()
    import_tensorflow()
    place, parent = Path(tempfile.mkdtemp(prefix="tapeline-beside-")), os.getpid()
    try:
        beside = Beside(place, asked.epochs, functools.partial(print, flush=True))
        only = [name.strip() for name in asked.only.split(",") if name.strip()]
        return 1 if beside.go(asked.times, only) else 0
    finally:
        if os.getpid() == parent:  # forked children pass here as well and must not delete it
            shutil.rmtree(place)


class Beside:
    """Runner of modes during trainings, which compares the outputs.

    Args:
      place: directory of the runs.
      epochs: number of epochs of each training.
      tell: called periodically with a line on the progress.
    """

    def __init__(self, place: Path, epochs: int, tell: Callable[[str], None]) -> None:
        _import_modes()
        self._place, self._tell = place, tell
        self._options = [f"--epochs={epochs}", f"--cache_dir={place / 'cache'}"]
        self._pictures = place / "pictures"
        self._pictures.mkdir()
        random = np.random.default_rng(0)
        for number in range(_PICTURES):
            image = random.integers(0, 256, [8, 8, 1], np.uint8)
            np.save(self._pictures / f"{number}.npy", image)
        self._training: _Training | None = None
        self._trainings = 0
        self._problems: list[str] = []

    def go(self, times: int, only: list[str]) -> list[str]:
        """Runs each mode several times, and trainings at the same time.

        Args:
          times: number of runs of each mode in `READING`; `OTHERS` has those of the other modes.
          only: names of modes; []: all.

        Returns:
          The problems, one line each.
        """
        untouched = self._place / "untouched"
        started = time.monotonic()
        ended = self._command([*TRAINING, *self._options, f"--run_dir={untouched}"])
        assert ended.status == 0, ended.said
        saved = len((untouched / "metrics.jsonl").read_text().splitlines())
        self._tell(f"untouched: {time.monotonic() - started:.1f} s, {saved} rows")
        names = [*READING] * times + [n for n, (count, _) in OTHERS.items() for _ in range(count)]
        done: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        names = [name for name in names if not only or name in only]
        try:
            for name in names:
                problem = self._once(name, done[name])
                done[name] += 1
                if problem:
                    failed[name] += 1
                    self._problems.append(f"{name}: {problem}")
                    self._tell(f"FAILED {self._problems[-1]}")
                count = sum(done.values())
                self._tell(f"{count} of {len(names)}, {name}; {len(self._problems)} problems")
            if self._training is not None:
                self._end(self._training)
        finally:
            if self._training is not None:
                self._training.kill()
        self._tell("| mode | times | failed |\n|---|---|---|")
        for name, count in done.items():
            self._tell(f"| {name} | {count} | {failed[name]} |")
        self._tell(f"{len(self._problems)} problems beside {self._trainings} trainings")
        return self._problems

    def _once(self, name: str, number: int) -> str:
        """Runs a mode once; returns the problem, or "" if there is none.

        `number` is the number of earlier runs of this mode; even runs read the newest weights, odd
        runs the best.
        """
        training = self._beside()
        if name in OTHERS:
            ended = self._command(self._asked(OTHERS[name][1], training.run_dir))
            return "" if ended.status == 0 else f"exit status {ended.status}: {ended.said[-600:]}"
        weights = ("newest", "best")[number % 2]
        options = [*READING[name].options, f"--weights={weights}"]
        ended = self._command(self._asked(options, training.run_dir))
        if ended.status:
            return f"--weights={weights}: exit status {ended.status}: {ended.said[-600:]}"
        told = _TOLD.search(ended.said)
        if told is None or told[1] != weights:
            return f"--weights={weights}: names no step: {ended.said[:600]}"
        step, path = int(told[2].replace(",", "")), Path(told[3])
        if training.step_of(path) != step:
            return f"{told[0]}: the training saved step {training.step_of(path)} there"
        if number % _AS_ALONE >= 2:
            return ""
        answer = self._answer(name, ended, training.run_dir)
        alone = self._alone(training, path, weights)
        ended = self._command(self._asked(options, alone))
        if ended.status:
            return f"alone: exit status {ended.status}: {ended.said[-600:]}"
        same = answer == self._answer(name, ended, alone)
        return "" if same else f"{told[0]}: alone it answers otherwise"

    def _asked(self, options: list[str] | tuple[str, ...], run_dir: Path) -> list[str]:
        filled = [
            option.replace("PICTURES", str(self._pictures))
            .replace("TUNED", f"{run_dir}-tuned")
            .replace("PAGE", f"{run_dir}-page")
            for option in options
        ]
        own = [*TRAINING, *self._options] if "--mode=report" not in options else ["--progress=off"]
        return [*own, *filled, f"--run_dir={run_dir}"]

    def _command(self, arguments: list[str]) -> Ended:
        said = self._place / "said"
        child = begin(arguments, said, _shorten_tuning)
        return Ended(_status(child), said.read_text())

    def _answer(self, name: str, ended: Ended, run_dir: Path) -> list[object]:
        """Returns the output of a mode, without the checkpoint's path and measurements of time.

        The output is (relative path, content) of each file; for "evaluate" also the printed JSON.
        """
        paths = sorted(path for each in READING[name].answers for path in run_dir.glob(each))
        assert paths, f"{name} wrote none of {READING[name].answers}"
        found: list[object] = [
            (str(path.relative_to(run_dir)), path.read_bytes()) for path in paths
        ]
        if name == "evaluate":
            last = json.loads(ended.said.splitlines()[-1])
            found.append({key: value for key, value in last.items() if key != "weights"})
        return found

    def _alone(self, training: _Training, path: Path, weights: str) -> Path:
        """Creates a run directory with only one checkpoint of a training; returns the directory.

        `weights` is "newest" or "best"; a best checkpoint is the newest one, too.
        """
        alone = self._place / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        for folder in ("checkpoints", "best") if weights == "best" else ("checkpoints",):
            (alone / folder).mkdir(parents=True)
            os.link(training.kept_at(path), alone / folder / path.name)
        shutil.copy(training.run_dir / "config.flags", alone)
        return alone

    def _beside(self) -> _Training:
        """Returns the training in progress; starts a new one if the last has ended."""
        if self._training is not None and self._training.ended():
            self._end(self._training)
            self._training = None
        if self._training is None:
            self._trainings += 1
            self._training = _Training(
                self._place / f"training-{self._trainings}", [*TRAINING, *self._options]
            )
        return self._training

    def _end(self, training: _Training) -> None:
        """Waits for a training, and compares it with the undisturbed training; deletes its files.

        A failure or a difference is recorded as a problem.
        """
        from tests.sameness import differences

        status = training.wait()
        if status:
            problem = f"exit status {status}: {training.said[-600:]}"
        else:
            problem = ", ".join(differences(self._place / "untouched", training.run_dir))
        if problem:
            self._problems.append(f"training: {problem}")
            self._tell(f"FAILED {self._problems[-1]}")
        training.forget()


class _Training:
    """A training in a child process, with a hard link to every checkpoint that it saves.

    The constructor waits until the training has saved a best checkpoint, or has ended.

    Args:
      folder: directory of this training.
      options: options of the command.
    """

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.run_dir, self._kept, self._said = folder / "run", folder / "kept", folder / "said"
        self._folder, self._parent = folder, os.getpid()
        folder.mkdir()
        arguments = [*options, f"--run_dir={self.run_dir}"]
        self._child = begin(arguments, self._said, self._keep_all)
        self._status: int | None = None
        while not list(self.run_dir.glob("best/ckpt-*.npz")) and not self.ended():
            time.sleep(0.01)

    def _keep_all(self) -> None:
        """Replaces `Retention.prune` by a function that first links all checkpoints of the run."""
        from engine.checkpoint import catalog
        from engine.checkpoint.retention import Retention

        prune, run_dir, kept = Retention.prune, self.run_dir, self._kept

        def keeping(*given: object) -> None:
            for folder in ("checkpoints", "best"):
                (kept / folder).mkdir(parents=True, exist_ok=True)
                for path in catalog.list_checkpoints(str(run_dir / folder)):
                    with contextlib.suppress(FileExistsError):
                        os.link(path, kept / folder / os.path.basename(path))
            prune(*given)

        Retention.prune = keeping

    def kept_at(self, path: Path) -> Path:
        """Returns the path of the hard link to a checkpoint of the run."""
        return self._kept / path.relative_to(self.run_dir)

    def step_of(self, path: Path) -> int | None:
        """Returns the step of the checkpoint that was saved at a path; None if there was none.

        Waits up to five seconds for the hard link.
        """
        from engine.checkpoint.catalog import read_metadata

        end = time.monotonic() + 5  # the link follows shortly after the file's rename
        while not self.kept_at(path).exists() and time.monotonic() < end:
            time.sleep(0.01)
        return (
            read_metadata(str(self.kept_at(path)))["step"] if self.kept_at(path).exists() else None
        )

    @property
    def said(self) -> str:
        """The output of the training so far."""
        return self._said.read_text()

    def ended(self) -> bool:
        """Returns whether the training has ended."""
        if self._status is None:
            ended, status = os.waitpid(self._child, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status is not None

    def wait(self) -> int:
        """Waits for the training to end; returns its exit status."""
        while not self.ended():
            time.sleep(0.01)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """Kills the training if it still runs; does nothing in forked children."""
        if os.getpid() == self._parent and not self.ended():
            os.kill(self._child, signal.SIGKILL)
            self.wait()

    def forget(self) -> None:
        """Deletes the training's files."""
        shutil.rmtree(self._folder)


def _status(child: int) -> int:
    """Waits for a child and kills it after `HANG` seconds; returns the exit status.

    The status is the negative number of a signal if that ended the child.
    """
    started = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > HANG:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _import_modes() -> None:
    """Imports the modules of all modes once, so that no child has to import them."""
    from engine.benchmark import command as benchmark
    from engine.reporting import command, evaluate_command
    from engine.serving import export, predict
    from engine.trainer import command as training
    from engine.verify import command as verify

    del benchmark, command, evaluate_command, export, predict, training, verify


def _shorten_tuning() -> None:
    """Limits `--mode=tune` to one round of two candidates, because the result is not checked."""
    from engine.tune import choices, contest

    contest.ROUNDS = 1
    choices.first = lambda *_: []
    choices.around = lambda *_: [choices.Candidate(feed="stream")]


if __name__ == "__main__":
    sys.exit(main())
