"""Loading checkpoints while a training process saves and prunes at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import catalog, checkpoint_file
from engine.checkpoint.checkpoint_file import DamagedError
from engine.checkpoint.retention import Retention

KEEP = 2


class Training:
    """Simulates the checkpoint writes of a training process.

    Args:
      run_dir: path of the run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._number, self._best = str(run_dir), 0, -1
        self._retention = Retention(self._run_dir, KEEP)

    def save(self, *, best: bool = False) -> None:
        """Saves a checkpoint of step 10 * number with an array of that value, then prunes."""
        self._number += 1
        step = 10 * self._number
        self._best = step if best else self._best
        facts = {"number": self._number, "step": step, "best_step": self._best}
        directories = [catalog.newest_directory(self._run_dir)]
        if best:
            directories.insert(0, catalog.best_directory(self._run_dir))
        for directory in directories:
            os.makedirs(directory, exist_ok=True)
            path = catalog.checkpoint_path(directory, self._number)
            checkpoint_file.write(path, facts, {"x": np.array([step])})
        self._retention.prune(step, [self._best])


@pytest.fixture
def training(tmp_path) -> Training:
    return Training(tmp_path)


@pytest.fixture
def before_opening(monkeypatch):
    """Returns a function that takes functions to call, one before each opening of a file."""
    left: list = []
    read = checkpoint_file.read

    def reading(path):
        if left:
            left.pop(0)()
        return read(path)

    monkeypatch.setattr(checkpoint_file, "read", reading)
    return left.extend


@pytest.mark.parametrize("times", [1, 2, 7])
def test_newest_is_pruned(training, tmp_path, before_opening, times):
    """The newest checkpoint is loaded even if pruning removes it between listing and opening."""

    def prune() -> None:
        for _ in range(KEEP):
            training.save()

    training.save()
    before_opening([prune] * times)
    found = catalog.load_newest(str(tmp_path))
    assert found.step == 10 * (1 + KEEP * times) == found.archive.arrays["x"][0]
    assert not os.path.exists(found.path) or found.path == catalog.newest_checkpoint(str(tmp_path))


@pytest.mark.parametrize("times", [1, 2, 7])
def test_best_is_replaced(training, tmp_path, before_opening, times):
    """The best checkpoint is loaded even if another replaces it before it is opened."""

    def better() -> None:
        training.save(best=True)

    better()
    # Nothing happens before the newest is opened; the best is replaced before it is opened.
    before_opening([lambda: None, better] * times)
    found = catalog.load_best(str(tmp_path))
    assert found.step == found.best_step == 10 * (1 + times) == found.archive.arrays["x"][0]


def test_best_is_named_by_newest(training, tmp_path):
    """The best checkpoint is that of the newest one's best step, not the last file in best/."""
    training.save(best=True)
    training.save()
    directory = catalog.best_directory(str(tmp_path))
    other = {"number": 3, "step": 30, "best_step": 30}  # written before the newest one is
    checkpoint_file.write(catalog.checkpoint_path(directory, 3), other, {"x": np.array([30])})
    assert catalog.load_best(str(tmp_path)).step == 10


def test_pruned_while_reading(training, tmp_path, monkeypatch):
    training.save()
    path = catalog.newest_checkpoint(str(tmp_path))
    facts = checkpoint_file._read_manifest

    def pruned(*given):
        found = facts(*given)
        monkeypatch.setattr(checkpoint_file, "_read_manifest", facts)
        training.save()
        training.save()
        assert not os.path.exists(path)
        return found

    monkeypatch.setattr(checkpoint_file, "_read_manifest", pruned)
    assert catalog.load_newest(str(tmp_path)).step == 10


def test_no_checkpoints(training, tmp_path):
    assert catalog.load_newest(str(tmp_path)) is catalog.load_best(str(tmp_path)) is None
    training.save()
    assert catalog.load_newest(str(tmp_path)).step == 10
    assert catalog.load_best(str(tmp_path)) is None


@pytest.mark.parametrize("load", [catalog.load_newest, catalog.load_best])
def test_damaged_file(training, tmp_path, load):
    """A damaged file raises an error instead of endless retries."""
    training.save(best=True)
    folder = "checkpoints" if load is catalog.load_newest else "best"
    (tmp_path / folder / "ckpt-1.npz").write_bytes(b"torn")
    with pytest.raises(DamagedError, match=f"cannot load checkpoint .*{folder}/ckpt-1.npz"):
        load(str(tmp_path))


@pytest.mark.parametrize("load", [catalog.load_newest, catalog.load_best])
def test_name_without_file(training, tmp_path, load):
    """A directory entry without a file raises an error instead of endless retries."""
    training.save(best=True)
    folder = "checkpoints" if load is catalog.load_newest else "best"
    (tmp_path / folder / "ckpt-1.npz").unlink()
    (tmp_path / folder / "ckpt-1.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DamagedError, match=r"No such file|there is no checkpoint of it"):
        load(str(tmp_path))


def test_lost_best(training, tmp_path):
    training.save(best=True)
    (tmp_path / "best" / "ckpt-1.npz").unlink()
    with pytest.raises(DamagedError, match="names step 10 as the best, and there is no"):
        catalog.load_best(str(tmp_path))


def test_known_steps_are_not_read_again(tmp_path, training, monkeypatch):
    """Polling reads the metadata of new files alone, and of a file that another one replaced."""
    known, seen = {}, []
    read = catalog.read_metadata
    monkeypatch.setattr(catalog, "read_metadata", lambda path: seen.append(path) or read(path))
    training.save(best=True)
    seen.clear()
    for _ in range(2):
        assert sorted(catalog.saved_steps(str(tmp_path), known)) == [10]
    assert len(seen) == 2  # in checkpoints/ and in best/
    training.save()
    seen.clear()
    assert sorted(catalog.saved_steps(str(tmp_path), known)) == [10, 20] and len(seen) == 1
    path = catalog.newest_checkpoint(str(tmp_path))
    checkpoint_file.write(path, {"number": 2, "step": 7, "best_step": 10}, {"x": np.array([7.0])})
    assert sorted(catalog.saved_steps(str(tmp_path), known)) == [7, 10] and len(seen) == 2
