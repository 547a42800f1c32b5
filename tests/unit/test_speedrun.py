"""`benchmarks.speedrun`, which trains and reports missed goals; without training."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import speedrun, trainings
from benchmarks.environments import python_of
from engine.config import flags

RESULT = {
    "step": 400,
    "steps_per_second": 125.0,
    "train_seconds": 6.0,  # with tracing
    "test": {"accuracy": 0.992, "loss": 0.1, "examples": 10_000},
    "versions": {"tapeline": "0", "tensorflow": "0"},
}


def test_mean_at_goal():
    assert speedrun.misses([0.9885, 0.9915], [6.0, 4.0]) == []


@pytest.mark.parametrize("accuracies", [[0.9899], [0.989, 0.9909], [float("nan"), 0.999], []])
def test_mean_accuracy_below_goal(accuracies):
    (miss,) = speedrun.misses(accuracies, [3.0])
    assert miss.startswith("mean test accuracy") and "99.0%" in miss


@pytest.mark.parametrize("seconds", [[5.01], [3.0, 7.1], [float("nan")], []])
def test_mean_time_above_goal(seconds):
    (miss,) = speedrun.misses([0.995], seconds)
    assert miss.startswith("mean training time") and "5 s" in miss


def test_misses_both_goals():
    assert len(speedrun.misses([0.98], [9.0])) == 2


def test_seconds_without_tracing():
    assert speedrun.measured(RESULT)["seconds"] == pytest.approx(400 / 125)


@pytest.mark.parametrize("missing", [{"test": None}, {"steps_per_second": 0.0}])
def test_refuses_incomplete_result(missing):
    with pytest.raises(trainings.RunError, match=r"result\.json"):
        speedrun.measured(RESULT | missing)


def test_recipe_ignores_held_out_data():
    recipe = flags.parse([f"--flagfile={speedrun.RECIPE}"])
    assert recipe.data.validation_split == "0" and recipe.data.test_split == "auto"
    assert recipe.stopping.patience == -1 and not recipe.stopping.restore_best


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Returns a function that runs the command, whose trainings have a given result."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)

    def keras(place, seed):
        found = {"seconds": [30.0, 30.0], "accuracies": [0.98, 0.9905], "versions": {"keras": "0"}}
        return found | {"epochs": 2, "reached": True}

    def run(accuracy=0.992, rate=125.0, options=()):
        result = RESULT | {"test": {"accuracy": accuracy}, "steps_per_second": rate}
        told = speedrun.measured(result) | {"versions": RESULT["versions"]}
        monkeypatch.setattr(speedrun, "train", lambda data_dir, seed: told)
        monkeypatch.setattr(speedrun, "train_with_keras", keras)
        return speedrun.main(["--data_dir=nowhere", "--seeds=2", f"--out={tmp_path}", *options])

    return run


def test_command_writes_table(command, tmp_path):
    assert command() == 0
    assert json.loads((tmp_path / "speedrun.json").read_text())["missed"] == []
    written = (tmp_path / "SPEEDRUN.md").read_text()
    assert "| mean | 99.20 ± 0.00 | 3.20 ± 0.00 |" in written and "reached." in written


def test_command_reports_misses(command, tmp_path, capsys):
    assert command(accuracy=0.9899) == 1
    assert capsys.readouterr().err == (
        "FAIL mean test accuracy 98.990%, at least 99.0% is wanted\n"
    )
    assert "MISSED" in (tmp_path / "SPEEDRUN.md").read_text()
    assert command(rate=79.0) == 1
    assert capsys.readouterr().err == "FAIL mean training time 5.06 s, at most 5 s is wanted\n"


def test_keras_columns(command, tmp_path):
    place = tmp_path / "place"
    for path in (python_of(place, "keras"), place / "mnist.npz"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert command(options=["--keras", f"--place={place}"]) == 0
    written = (tmp_path / "SPEEDRUN.md").read_text()
    assert "| 0 | 99.20% | 3.20 | 2 epochs | 99.05% | 60.0 | 18.8 |" in written


def test_requires_keras(command, tmp_path, capsys):
    assert command(options=["--keras", f"--place={tmp_path / 'nowhere'}"]) == 1
    assert capsys.readouterr().err.startswith("FAIL --keras needs ")


def test_failed_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(trainings, "_PAUSE", 0.0)
    monkeypatch.setattr(speedrun, "RECIPE", tmp_path / "nowhere.flags")
    assert speedrun.main([f"--data_dir={tmp_path}", f"--out={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("FAIL seed 0: exit status 2: ") and error.count("\n") == 1
    assert not (tmp_path / "SPEEDRUN.md").exists()
