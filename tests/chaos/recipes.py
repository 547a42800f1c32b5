"""Kills trainings of the recipes, and trains them on two devices; the bits must stay the same.

    python -m tests.chaos.recipes --data_dir=DATA_DIR
    python -m tests.chaos.recipes --data_dir=DATA_DIR --only=shakespeare --check=kills --kills=5
    python -m tests.chaos.recipes --data_dir=DATA_DIR --steps=200

Each training is a process of its own, as a user starts it. For each recipe:

- kills: one training is untouched; another gets SIGKILL at random instants, and is then resumed to
  its end. Weights, curves, decisions and checkpoints must be bitwise equal. With `--steps`, both
  are so long, and not as long as the recipe.
- shards: with `--shards=2`, one device and two virtual devices must have bitwise equal states after
  the first 200 steps of the whole recipe.

Prints a line for each; the exit status is 1 if any differs, and 2 for bad input. A recipe takes two
to three times as long as its training.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.checkpoint.catalog import kept_directory, list_checkpoints, read_metadata
from tests.cli.command import REPOSITORY
from tests.sameness import bytes_of, differences, result_of

RECIPES = REPOSITORY / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.flags"))
CHECKS = ("kills", "shards")
SHARDED_STEPS = 200
_QUIET = ("--progress=off", "--report=false")
_POLL = 0.2  # seconds between two looks for a checkpoint


class RecipeRuns:
    """Trainings of one flagfile in new processes.

    Args:
      flagfile: path of the flagfile.
      place: directory of the runs.
      *options: options of every training, in addition to the flagfile.
    """

    def __init__(self, flagfile: Path, place: Path, *options: str) -> None:
        self._command = (sys.executable, "run.py", f"--flagfile={flagfile}", *_QUIET, *options)
        self._place = place

    def killed_alike(self, kills: int, random: np.random.Generator) -> str:
        """Trains once untouched and once with kills; returns a line that says they are the same.

        Args:
          kills: number of kills of the second training.
          random: generator of the instants. Each is a time since the start of a process, between 0
            and the seconds of the untouched training divided by `kills` + 1.

        Raises:
          AssertionError: if they differ, or a training fails.
        """
        untouched, killed = self._place / "untouched", self._place / "killed"
        started = time.monotonic()
        _wait(self._start(untouched))
        seconds = time.monotonic() - started
        instants = []
        while len(instants) < kills:
            instant = random.uniform(0, seconds / (kills + 1))
            process = self._start(killed)
            try:
                process.wait(instant)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                instants.append(instant)
            else:
                _wait(process)
                raise AssertionError(f"ended before kill {len(instants) + 1}")
        _wait(self._start(killed))
        found = differences(untouched, killed)
        assert not found, f"differ after kills at {instants} s: {', '.join(found[:8])}"
        result = result_of(killed)
        told = ", ".join(f"{instant:.1f}" for instant in instants)
        return (
            f"{result['step']:,} steps, {seconds:.0f} s untouched, killed after {told} s: the same "
            f"bits, weights {result['weights_sha256'][:8]}"
        )

    def sharded_alike(self, steps: int) -> str:
        """Trains the first steps on one and on two devices; returns a line that says the same.

        Args:
          steps: number of steps, at most those of the flagfile.

        Raises:
          AssertionError: if the states after these steps differ, or a training fails.
        """
        states = [self._state_after(steps, devices) for devices in (1, 2)]
        names = sorted(states[0].keys() ^ states[1].keys())
        names += [name for name in states[0] if states[0][name] != states[1].get(name)]
        assert not names, f"differ on 2 devices: {', '.join(names[:8])}"
        return f"{steps} steps with --shards=2, 1 and 2 devices: the same bits"

    def _state_after(self, steps: int, devices: int) -> dict[str, bytes]:
        run_dir = self._place / f"devices-{devices}"
        options = ("--shards=2", f"--virtual_devices={devices}", f"--keep_every={steps}")
        process = self._start(run_dir, *options)
        kept = kept_directory(str(run_dir))
        while not list_checkpoints(kept) and process.poll() is None:
            time.sleep(_POLL)
        process.kill()
        said, _ = process.communicate()
        found = list_checkpoints(kept)
        assert found and read_metadata(found[0])["step"] == steps, f"no step {steps}: {said[-800:]}"
        return bytes_of(found[0])

    def _start(self, run_dir: Path, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, f"--run_dir={run_dir}", *options],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _wait(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    assert process.returncode == 0, f"exit status {process.returncode}: {said[-800:]}"


def main(given: Sequence[str] | None = None) -> int:
    """Checks the recipes; returns 1 if one differs, 2 for bad input, otherwise 0.

    Args:
      given: command-line arguments; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recipes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_dir", required=True, help="where the data sets are prepared")
    parser.add_argument("--only", action="append", choices=NAMES, help="name of a recipe")
    parser.add_argument("--check", action="append", choices=CHECKS, help="name of a check")
    parser.add_argument("--kills", type=int, default=3, help="of each training (default 3)")
    parser.add_argument("--steps", type=int, default=0, help="0: as long as the recipe (default)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default 0)")
    asked = parser.parse_args(given)
    if asked.kills < 1 or asked.steps < 0:
        parser.error("--kills must be 1 or more, and --steps 0 or more")
    length = (f"--train_steps={asked.steps}",) if asked.steps else ()
    random = np.random.default_rng(asked.seed)
    failures = 0
    for name in asked.only or NAMES:
        for check in asked.check or CHECKS:
            with tempfile.TemporaryDirectory(prefix="tapeline-recipes-") as folder:
                more = length if check == "kills" else ()
                flagfile, place = RECIPES / f"{name}.flags", Path(folder)
                runs = RecipeRuns(flagfile, place, f"--data_dir={asked.data_dir}", *more)
                try:
                    if check == "kills":
                        said = runs.killed_alike(asked.kills, random)
                    else:
                        said = runs.sharded_alike(SHARDED_STEPS)
                except AssertionError as error:
                    failures, said = failures + 1, f"FAIL: {error}"
            print(f"{name}, {check}: {said}", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
