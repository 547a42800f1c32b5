"""Checkpoints are read beside a training that saves and prunes at every moment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.keeping import archive, catalogue
from engine.keeping.archive import DamagedError

KEEP = 2


class Training:
    """What a training does to a run directory.

    Args:
      run_dir: of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._number, self._best = str(run_dir), 0, -1

    def save(self, *, best: bool = False) -> None:
        """Saves a checkpoint of step 10 * its number, with an array of that value; prunes."""
        self._number += 1
        step = 10 * self._number
        self._best = step if best else self._best
        facts = {"number": self._number, "step": step, "best_step": self._best}
        directories = [catalogue.newest_directory(self._run_dir)]
        if best:
            directories.insert(0, catalogue.best_directory(self._run_dir))
        for directory in directories:
            os.makedirs(directory, exist_ok=True)
            path = catalogue.checkpoint_path(directory, self._number)
            archive.write(path, facts, {"x": np.array([step])})
        catalogue.prune(self._run_dir, KEEP, step, self._best)


@pytest.fixture
def training(tmp_path) -> Training:
    return Training(tmp_path)


@pytest.fixture
def before_opening(monkeypatch):
    """Has functions called one after the other, each just before the next file is opened."""
    left: list = []
    read = archive.read

    def reading(path):
        if left:
            left.pop(0)()
        return read(path)

    monkeypatch.setattr(archive, "read", reading)
    return left.extend


@pytest.mark.parametrize("times", [1, 2, 7])
def test_the_newest_is_read_though_it_is_pruned_between_listing_and_opening(
    training, tmp_path, before_opening, times
):
    def prune() -> None:
        for _ in range(KEEP):
            training.save()

    training.save()
    before_opening([prune] * times)
    found = catalogue.load_newest(str(tmp_path))
    assert found.step == 10 * (1 + KEEP * times) == found.archive.arrays["x"][0]
    assert not os.path.exists(found.path) or found.path == catalogue.newest_of(str(tmp_path))


@pytest.mark.parametrize("times", [1, 2, 7])
def test_the_best_is_read_though_another_takes_its_place_meanwhile(
    training, tmp_path, before_opening, times
):
    def better() -> None:
        training.save(best=True)

    better()
    # Before the newest is opened nothing happens; before the best is, it is replaced.
    before_opening([lambda: None, better] * times)
    found = catalogue.load_best(str(tmp_path))
    assert found.step == found.best_step == 10 * (1 + times) == found.archive.arrays["x"][0]


def test_the_best_is_the_one_that_the_newest_names_and_not_the_last_in_its_folder(
    training, tmp_path
):
    training.save(best=True)
    training.save()
    directory = catalogue.best_directory(str(tmp_path))
    other = {"number": 3, "step": 30, "best_step": 30}  # written, and the newest one not yet
    archive.write(catalogue.checkpoint_path(directory, 3), other, {"x": np.array([30])})
    assert catalogue.load_best(str(tmp_path)).step == 10


def test_a_file_that_is_pruned_while_it_is_read_is_read_to_its_end(training, tmp_path, monkeypatch):
    training.save()
    path = catalogue.newest_of(str(tmp_path))
    facts = archive._facts

    def pruned(*given):
        found = facts(*given)
        monkeypatch.setattr(archive, "_facts", facts)
        training.save()
        training.save()
        assert not os.path.exists(path)
        return found

    monkeypatch.setattr(archive, "_facts", pruned)
    assert catalogue.load_newest(str(tmp_path)).step == 10


def test_no_checkpoint_and_no_best_one_are_none(training, tmp_path):
    assert catalogue.load_newest(str(tmp_path)) is catalogue.load_best(str(tmp_path)) is None
    training.save()
    assert catalogue.load_newest(str(tmp_path)).step == 10
    assert catalogue.load_best(str(tmp_path)) is None


@pytest.mark.parametrize("load", [catalogue.load_newest, catalogue.load_best])
def test_a_damaged_file_is_an_error_and_no_endless_loop(training, tmp_path, load):
    training.save(best=True)
    folder = "checkpoints" if load is catalogue.load_newest else "best"
    (tmp_path / folder / "ckpt-1.npz").write_bytes(b"torn")
    with pytest.raises(DamagedError, match=f"cannot load checkpoint .*{folder}/ckpt-1.npz"):
        load(str(tmp_path))


@pytest.mark.parametrize("load", [catalogue.load_newest, catalogue.load_best])
def test_a_name_without_a_file_is_an_error_and_no_endless_loop(training, tmp_path, load):
    training.save(best=True)
    folder = "checkpoints" if load is catalogue.load_newest else "best"
    (tmp_path / folder / "ckpt-1.npz").unlink()
    (tmp_path / folder / "ckpt-1.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DamagedError, match=r"No such file|there is no checkpoint of it"):
        load(str(tmp_path))


def test_a_lost_best_one_is_said(training, tmp_path):
    training.save(best=True)
    (tmp_path / "best" / "ckpt-1.npz").unlink()
    with pytest.raises(DamagedError, match="names step 10 as the best, and there is no"):
        catalogue.load_best(str(tmp_path))
