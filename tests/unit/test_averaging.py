"""Averages of the weights of the best checkpoints, against NumPy, while training prunes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.assembly import trained
from engine.checkpoint import averaging, catalog, checkpoint_file
from engine.checkpoint.checkpoint_file import CheckpointContents, DamagedError
from engine.checkpoint.retention import Retention
from tests.unit.test_trained import config

SHAPES = {"model/kernel": (5, 7), "model/bias": (), "ema/kernel": (5, 7)}


def arrays(step: int) -> dict[str, np.ndarray]:
    """Returns random weights, a frozen integer, an optimizer slot and a counter."""
    random = np.random.default_rng(step)
    found = {
        name: np.asarray(random.normal(size=shape) * 10.0 ** random.integers(-4, 5), np.float32)
        for name, shape in SHAPES.items()
    }
    integers = {"model/table": np.array([step, 3]), "step": np.array(step)}
    return found | integers | {"optimizer/slot": np.ones(3, np.float32)}


def mean(steps: list[int], name: str) -> np.ndarray:
    """Returns the mean in float64, rounded to float32."""
    values = np.stack([arrays(step)[name].astype(np.float64) for step in steps])
    return (values.sum(0) / len(steps)).astype(np.float32)


class Training:
    """Saves checkpoints of steps 10, 20, ..., the newest of which is the best of three."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._number, self._best = str(run_dir), 0, list[int]()
        self._retention = Retention(self._run_dir, 2)

    def save(self) -> None:
        self._number += 1
        step = 10 * self._number
        self._best = [step, *self._best][:3]
        facts = {"number": self._number, "step": step, "best_step": step, "best_steps": self._best}
        for folder in (catalog.best_directory, catalog.newest_directory):
            os.makedirs(folder(self._run_dir), exist_ok=True)
            path = catalog.checkpoint_path(folder(self._run_dir), self._number)
            checkpoint_file.write(path, facts, arrays(step))
        self._retention.prune(step, self._best)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    training = Training(tmp_path)
    for _ in range(4):
        training.save()
    return training


@pytest.mark.parametrize("count", [1, 2, 3])
def test_average_matches_numpy(training, tmp_path, count):
    """The sum is that of float64, and is rounded once."""
    steps = [40, 30, 20][:count]
    found = averaging.load_average(str(tmp_path), count)
    assert found.steps == steps
    assert found.checkpoint.archive.facts["step"] == 40
    averaged = found.checkpoint.archive.arrays
    assert averaged.keys() == {*SHAPES, "model/table"}
    for name in SHAPES:
        assert averaged[name].dtype == np.float32 and averaged[name].shape == SHAPES[name]
        np.testing.assert_array_equal(averaged[name], mean(steps, name))
    np.testing.assert_array_equal(averaged["model/table"], [40, 3])


def test_equal_weights_stay_as_they_are():
    same = [CheckpointContents({}, arrays(1)) for _ in range(7)]
    averaged = averaging.average(same).arrays
    for name in SHAPES:
        np.testing.assert_array_equal(averaged[name], same[0].arrays[name])


@pytest.mark.parametrize("times", [1, 2, 5])
def test_pruned_while_reading(training, tmp_path, monkeypatch, times):
    """The average is of the best checkpoints of one moment, even if training removes one."""
    read, left = catalog.read_best, [None] * times

    def reading(run_dir, step, named_by):
        if left and step == int(named_by.split("-")[-1].split(".")[0]) * 10 - 10:
            left.pop()
            for _ in range(3):
                training.save()
        return read(run_dir, step, named_by)

    monkeypatch.setattr(catalog, "read_best", reading)
    found = averaging.load_average(str(tmp_path), 3)
    newest = 40 + 30 * times
    assert found.steps == [newest, newest - 10, newest - 20]
    for name in SHAPES:
        np.testing.assert_array_equal(
            found.checkpoint.archive.arrays[name], mean(found.steps, name)
        )


def test_damaged(training, tmp_path):
    path = Path(catalog.list_checkpoints(catalog.best_directory(str(tmp_path)))[0])
    path.write_bytes(b"torn")
    assert averaging.load_average(str(tmp_path), 2).steps == [40, 30]
    with pytest.raises(DamagedError, match=r"cannot load checkpoint .*best/ckpt-2.npz"):
        averaging.load_average(str(tmp_path), 3)
    path.unlink()
    with pytest.raises(DamagedError, match="names step 20 as the best, and there is no"):
        averaging.load_average(str(tmp_path), 3)


def test_too_few(training, tmp_path):
    with pytest.raises(ValueError, match=r"keeps 3 of the best checkpoints, of step 40, 30, 20; "):
        trained.choose(config(tmp_path, "--weights=average:4"))


def test_nothing_evaluated(tmp_path):
    with pytest.raises(ValueError, match=r"--weights=average:2: .* has no checkpoint yet"):
        trained.choose(config(tmp_path, "--weights=average:2"))
    os.makedirs(catalog.newest_directory(str(tmp_path)))
    path = catalog.checkpoint_path(catalog.newest_directory(str(tmp_path)), 1)
    checkpoint_file.write(path, {"number": 1, "step": 0, "best_step": -1}, arrays(0))
    with pytest.raises(ValueError, match="has no best checkpoint yet, because nothing has been"):
        trained.choose(config(tmp_path, "--weights=average:2"))


def test_run_of_an_older_version(tmp_path):
    """A checkpoint that names one best step has that one."""
    for folder in (catalog.best_directory, catalog.newest_directory):
        os.makedirs(folder(str(tmp_path)))
        path = catalog.checkpoint_path(folder(str(tmp_path)), 1)
        checkpoint_file.write(path, {"number": 1, "step": 10, "best_step": 10}, arrays(10))
    assert averaging.load_average(str(tmp_path), 1).steps == [10]


def test_description(training, tmp_path):
    chosen = trained.choose(config(tmp_path, "--weights=average:3"))
    assert chosen.description == "the average of the 3 best weights, of steps 40, 30, 20"
    assert chosen.snapshot.path == str(tmp_path / "best")
