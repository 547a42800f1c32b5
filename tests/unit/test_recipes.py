"""`benchmarks.recipes`, which trains recipes and reports missed goals; without training."""

from __future__ import annotations

import json

import pytest

from benchmarks import recipes, trainings


def run(accuracy: float, seconds: float = 10.0, keras: float | None = None) -> dict:
    """Returns the result of a training; `keras` is the time that Keras takes, in seconds."""
    rows = [
        {"epoch": epoch, "split": split, "loss": 0.03, "accuracy": accuracy}
        for epoch in (1, 15)
        for split in ("train", "validation")
    ]
    beside = {} if keras is None else {"keras": {"accuracy": 0.99, "seconds": keras}}
    return {"accuracy": accuracy, "seconds": seconds, "rows": rows} | beside


def test_mean_at_goal():
    assert recipes.misses({"seed_003_tuned": [run(0.9935), run(0.9945)]}) == []


@pytest.mark.parametrize("accuracies", [[0.9939], [0.995, 0.9925], [float("nan"), 0.999]])
def test_mean_below_goal(accuracies):
    (miss,) = recipes.misses({"seed_003_tuned": [run(each) for each in accuracies]})
    assert miss.startswith("seed_003_tuned") and "at least 99.40" in miss


def test_share_of_keras_time():
    (miss,) = recipes.misses({"seed_001": [run(0.99, 71, keras=100), run(0.99, 70, keras=100)]})
    assert "at most 0.7 of Keras's 100 s" in miss
    assert recipes.misses({"seed_001": [run(0.99, 70, keras=100)]}) == []


def test_table():
    found = {"seed_003": [run(0.99, 80, keras=130), run(0.991, 90, keras=150)]}
    *_, row = recipes.table(found)
    assert row == (
        "| `seed_003` | 99.20 | 99.00 ± 0.00 | 99.05 ± 0.07 | 99.00, 99.10 | 98.83 | 140 | 85 |"
    )


def test_curves_of_published_epochs():
    rows = list(recipes.curves([run(0.98), run(0.99)]))
    assert rows[2] == "| epoch 1, train accuracy | 88.68 | 98.50 ± 0.71 |"
    assert rows[-1] == "| epoch 15, validation loss | 0.0299 | 0.0300 ± 0.0000 |"


def test_replaces_text_between_marks():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    assert recipes.between(text, "a", ["new", "er"]) == (
        "before\n<!-- a -->\nnew\ner\n<!-- /a -->\nafter\n"
    )


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Returns a function that runs the command, whose trainings have a given accuracy."""
    readme = "<!-- results -->\n<!-- /results -->\n<!-- curves -->\n<!-- /curves -->\n"

    def ask(accuracy: float, *options: str) -> int:
        monkeypatch.setattr(recipes, "train", lambda recipe, data_dir, seed: run(accuracy))
        (tmp_path / "README.md").write_text(readme)
        return recipes.main(["--data_dir=nowhere", f"--out={tmp_path}", *options])

    return ask


def test_command_writes_tables(command, tmp_path):
    assert command(0.996, "--seeds=2") == 0
    written = (tmp_path / "README.md").read_text()
    assert written.count("99.60 ± 0.00") == 10 + 4
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["missed"] == [] and len(results["recipes"]["seed_000"]) == 2


def test_command_reports_misses(command, tmp_path, capsys):
    assert command(0.9935) == 1
    assert capsys.readouterr().err == (
        "FAIL seed_003_tuned: 99.35% on test, at least 99.40 is wanted\n"
    )
    assert len(json.loads((tmp_path / "results.json").read_text())["missed"]) == 1


def test_subset_keeps_tables(command, tmp_path):
    assert command(0.996, "--only=seed_003,seed_004") == 0
    assert "99.60" not in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "results.json").exists()


def test_failed_training_keeps_results(tmp_path, monkeypatch, capsys):
    def train(recipe, data_dir, seed):
        if recipe == "seed_001":
            raise trainings.RunError("seed_001, seed 0: exit status 1: error: no space")
        return run(0.99)

    monkeypatch.setattr(recipes, "train", train)
    assert recipes.main(["--data_dir=nowhere", f"--out={tmp_path}"]) == 1
    assert "no space" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "results.json").read_text())["recipes"]["seed_000"]) == 1


@pytest.mark.parametrize(
    "option, said",
    [
        ("--only=seed_009", "--only=seed_009: there are seed_000,"),
        ("--seeds=0", "--seeds=0: give at least 1"),
        ("--out=nowhere", "--out=nowhere: there is no such directory"),
    ],
)
def test_refuses_bad_input(option, said, capsys):
    assert recipes.main(["--data_dir=nowhere", option]) == 1
    assert capsys.readouterr().err.startswith(f"FAIL {said}")


def test_requires_keras(tmp_path, capsys):
    place = f"--place={tmp_path}"
    assert recipes.main(["--data_dir=nowhere", f"--out={tmp_path}", "--keras", place]) == 1
    assert "--keras needs" in capsys.readouterr().err
