"""Tests of law L5: a damaged checkpoint is never loaded without a reported problem."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint.catalog import checkpoint_number, list_checkpoints
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.models.properties import named_variables
from tests.harness import pictures, training

KEEP = 3


def made():
    return training(*pictures(30), ema=0.9)


def bits(state) -> dict[str, bytes]:
    return {name: variable.numpy().tobytes() for name, variable in named_variables(state).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[dict[str, bytes], dict[int, dict[str, bytes]]]:
    """Returns the contents of checkpoint files by path, and the states by checkpoint number.

    A state is a dict of the bytes of each variable by name.
    """
    place, run, states = tmp_path_factory.mktemp("saved"), made(), {}
    checkpoints = CheckpointManager(str(place), run.state, KEEP)
    for step in range(1, 5):
        run.take(1)
        if step in (1, 3):
            run.state.best.step.assign(step)
        path = checkpoints.save_and_wait(best=step in (1, 3))
        states[checkpoint_number(path)] = bits(run.state)
    files = [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in files}, states


@pytest.fixture(scope="module")
def fresh():
    return made()


def corrupt(random: np.random.Generator, place: Path, names: list[str]) -> str:
    """Truncates, alters, empties or deletes a random file, or swaps two files.

    Args:
      random: random generator.
      place: directory of the files.
      names: paths of the files, relative to `place`; those that do not exist are ignored.

    Returns:
      A description of the damage.
    """
    kind = str(random.choice(["truncate", "flip", "delete", "swap", "empty", "zeros"]))
    name, other = random.choice([n for n in names if (place / n).exists()], 2, replace=False)
    path, content = place / name, (place / name).read_bytes()
    if kind == "truncate":
        path.write_bytes(content[: int(random.integers(len(content)))])
    elif kind == "flip":
        at, changed = int(random.integers(len(content))), bytearray(content)
        changed[at] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(changed))
        return f"flip byte {at} of {name}"
    elif kind == "delete":
        path.unlink()
    elif kind == "swap":
        path.write_bytes((place / other).read_bytes())
        (place / other).write_bytes(content)
        return f"swap {name} and {other}"
    elif kind == "empty":
        path.write_bytes(b"")
    else:  # a block that was never written to disk
        at = int(random.integers(len(content)))
        path.write_bytes(content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :])
    return f"{kind} {name}"


@pytest.mark.parametrize("seed", range(120))
def test_damage_is_never_loaded(saved, fresh, tmp_path, seed):
    """After random damage, the restorer loads an intact checkpoint or raises OSError."""
    files, states = saved
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    random = np.random.default_rng(seed)
    names = sorted(files) if seed % 2 else [n for n in sorted(files) if "checkpoints" in n]
    done = [corrupt(random, tmp_path, names) for _ in range(1 + seed % 2)]
    before = len(list_checkpoints(str(tmp_path / "checkpoints")))
    try:
        path, problems = Restorer(str(tmp_path), fresh.state).newest()
    except OSError as error:
        assert "cannot load checkpoint" in str(error) and "\n" not in str(error), done
        assert len(list_checkpoints(str(tmp_path / "checkpoints"))) == before, done
        return
    assert path is not None, done
    assert bits(fresh.state) == states[checkpoint_number(path)], done
    newest = f"checkpoints/ckpt-{max(states)}.npz"
    if os.path.relpath(path, tmp_path) != newest and (tmp_path / newest).exists():
        assert problems, done


def test_lost_best_falls_back(tmp_path):
    """If the best checkpoint is lost, the newest checkpoint that does not refer to it is restored.

    The repeated steps save the same best checkpoint again, so the run ends unchanged.
    """
    run = made().take(1)
    checkpoints = CheckpointManager(str(tmp_path), run.state, KEEP)
    checkpoints.save_and_wait()
    run.take(1).state.best.step.assign(2)
    newest = checkpoints.save_and_wait(best=True)
    os.unlink(tmp_path / "best" / Path(newest).name)
    path, problems = Restorer(str(tmp_path), run.state).newest()
    assert checkpoint_number(path) == 1
    assert problems == [f"the best checkpoint, of step 2, is gone or damaged, which {newest} needs"]


def test_best_lost_by_all(tmp_path):
    """If every checkpoint refers to a lost best checkpoint, the newest is restored without it."""
    run = made().take(1)
    run.state.best.step.assign(1)
    newest = CheckpointManager(str(tmp_path), run.state, KEEP).save_and_wait(best=True)
    (tmp_path / "best" / Path(newest).name).write_bytes(b"torn")
    path, problems = Restorer(str(tmp_path), run.state).newest()
    assert path == newest and len(problems) == 2
    assert f"going on from {newest} without" in problems[-1]


def test_later_best_survives_fallback(tmp_path):
    """After a fallback, a best checkpoint of a later step is kept until training reaches it."""
    run = made().take(3)
    checkpoints = CheckpointManager(str(tmp_path), run.state, KEEP)
    checkpoints.save_and_wait()
    run.take(2)
    run.state.best.step.assign(5)
    newest = checkpoints.save_and_wait(best=True)
    os.unlink(newest)  # the run falls back to step 3
    again = made()
    checkpoints = CheckpointManager(str(tmp_path), again.state, KEEP)
    Restorer(str(tmp_path), again.state).newest()
    again.take(1)
    again.state.best.step.assign(4)  # worse than step 5
    checkpoints.save_and_wait(best=True)
    assert len(list_checkpoints(str(tmp_path / "best"))) == 2
    again.take(1)
    again.state.best.step.assign(5)
    checkpoints.save_and_wait(best=True)
    assert len(list_checkpoints(str(tmp_path / "best"))) == 1
