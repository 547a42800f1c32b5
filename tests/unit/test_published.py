"""`benchmarks.published`, which trains recipes of published results; without training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import published, trainings
from benchmarks.published import PYTORCH, TAPELINE
from engine.assembly import data
from engine.config import flags


def run(recipe: str, seed: int, score: float, seconds: float = 10.0, who: str = TAPELINE) -> dict:
    """Returns a line of published.jsonl."""
    result = {"test": {"accuracy": score}, "validation": {"loss": score}, "precision": "float32"}
    return {
        "recipe": recipe,
        "who": who,
        "seed": seed,
        "seconds": seconds,
        "result": result,
        "date": "2026-11-30",
        "processor": "a processor",
        "curve": [[100, 2.0], [200, 1.5]],
    }


@pytest.mark.parametrize("scores", [[0.9389, 0.9372], [0.9381]])
def test_accuracy_at_goal(scores):
    assert not list(published.misses([run("cifar10", n, score) for n, score in enumerate(scores)]))


@pytest.mark.parametrize("score", [0.9379, float("nan")])
def test_accuracy_below_goal(score):
    (miss,) = published.misses([run("cifar10", 0, score)])
    assert miss.startswith("cifar10") and "at least 93.800" in miss


def test_training_too_long():
    (miss,) = published.misses([run("cifar10_quick", 0, 0.91, 500)])
    assert "500 s, at most 480 s" in miss


def test_loss_and_seconds_beside_pytorch():
    theirs = run("shakespeare", 0, 1.9, 100, PYTORCH)
    assert not list(published.misses([run("shakespeare", 0, 1.919, 109), theirs]))
    missed = list(published.misses([run("shakespeare", 0, 1.921, 111), theirs]))
    assert len(missed) == 2 and "at most 1.920" in missed[0] and "at most 110 s" in missed[1]
    assert not list(published.misses([run("shakespeare", 0, 9.0, 900)]))  # nothing to compare with


def test_table():
    runs = [run("shakespeare", seed, 1.89 + 0.01 * seed) for seed in (1, 0)]
    runs.append(run("shakespeare", 0, 1.9, 20, PYTORCH))
    *_, row = published.table(runs)
    assert "1.895 ± 0.007 nats | 2: 1.890, 1.900 | 1.900 nats | 10 (20) |" in row


def test_known_runs_are_not_repeated(tmp_path, monkeypatch):
    """The second command trains only the seed that is new; table and picture are rewritten."""
    trained = []

    def train(recipe, data_dir, seed):
        trained.append(seed)
        line = run(recipe, seed, 0.95)
        return {key: line[key] for key in ("seconds", "curve", "result")}

    monkeypatch.setattr(published, "train", train)
    (tmp_path / "README.md").write_text("a\n<!-- published -->\n<!-- /published -->\nb\n")
    given = ["--data_dir=none", f"--out={tmp_path}", f"--place={tmp_path}", "--only=cifar10"]
    assert published.main([*given, "--seeds=1"]) == published.main([*given, "--seeds=2"]) == 0
    assert trained == [0, 1]
    lines = (tmp_path / published.RAW).read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == trained
    assert "95.00 ± 0.00 % | 2:" in (tmp_path / "README.md").read_text()
    assert (tmp_path / published.PICTURE).read_bytes()[1:4] == b"PNG"


def test_failed_training_keeps_the_others(tmp_path, monkeypatch, capsys):
    def train(recipe, data_dir, seed):
        if seed:
            raise trainings.RunError("cifar10, seed 1: exit status 3")
        line = run(recipe, seed, 0.95)
        return {key: line[key] for key in ("seconds", "curve", "result")}

    monkeypatch.setattr(published, "train", train)
    given = ["--data_dir=none", f"--out={tmp_path}", f"--place={tmp_path}", "--only=cifar10"]
    assert published.main(given) == 1
    assert "exit status 3" in capsys.readouterr().err
    assert len((tmp_path / published.RAW).read_text().splitlines()) == 1


@pytest.mark.parametrize("length", [300, 321, 1000])
def test_ids_for_pytorch_are_the_texts(tmp_path, monkeypatch, length):
    random = np.random.default_rng(length)
    text = "".join(random.choice(list("abcdef "), length))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "r.flags").write_text(
        f"--dataset=text:{tmp_path / 'text.txt'}\n--task=language_model\n--model=transformer\n"
        "--context=16\n"
    )
    monkeypatch.setattr(published, "RECIPES", tmp_path)
    published.write_ids("r", str(tmp_path), tmp_path / "ids.npz")
    source = data.open_source(flags.parse([f"--flagfile={tmp_path / 'r.flags'}"]))
    tokens = source.vocabulary.tokens
    with np.load(tmp_path / "ids.npz") as found:
        train, held = ("".join(tokens[i] for i in found[name]) for name in ("train", "validation"))
        assert found["vocabulary"] == len(tokens) == 7
    assert text.startswith(train) and train and held in text
    # Of the held-out text, the end that fills no window is left out.
    after = text[len(train) :]
    assert after.startswith(held) and len(held) % 16 == 1
