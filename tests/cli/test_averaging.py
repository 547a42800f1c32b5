"""The average of the best checkpoints in all modes that use weights, against NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpoint import catalog
from pipelines import order
from pipelines.sources import digits
from tests.choices import seldom
from tests.cli.command import Outcome, Run, Warm

MODEL = """
import tapeline as tl

@tl.model
def normed(outputs):
    units = outputs.shape[-1]
    return [
        tl.models.Flatten(),
        tl.models.Dense(24, "relu"),
        tl.models.BatchNorm(),
        tl.models.Dropout(0.2),
        tl.models.Dense(units),
    ]
"""
BATCH, STEPS = 48, 27  # an epoch
OPTIONS = ("--model=normed", f"--global_batch_size={BATCH}", "--learning_rate=0.01")


@pytest.fixture(scope="module", params=["weights", "ema"])
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory, request) -> Run:
    """Returns a run whose three best checkpoints are kept, without and with an EMA."""
    folder = tmp_path_factory.mktemp("averaging")
    (folder / "normed.py").write_text(MODEL)
    ema = ("--ema=0.9",) * (request.param == "ema")
    load = f"--load={folder / 'normed.py'}"
    return warm.train(folder / "run", load, *OPTIONS, *ema, "--epochs=5", "--keep_best=3")


def asked(warm: Warm, run: Run, *options: str, count: int = 2) -> Outcome:
    return warm.run(f"--run_dir={run.run_dir}", f"--weights=average:{count}", *options)


def evaluated(warm: Warm, run: Run, *options: str) -> dict:
    outcome = asked(warm, run, "--mode=evaluate", *options)
    assert outcome.status == 0, outcome.said()
    return json.loads(outcome.out.splitlines()[-1])


def best_steps(run: Run) -> list[int]:
    """Returns the steps of the evaluations in metrics.jsonl, the best first, the earlier first."""
    rows = [(-row["accuracy"], row["step"]) for row in run.rows("validation")]
    return [step for _, step in sorted(rows)]


def split_of(cache_dir: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a split of digits: images as inputs, float64 [n, 64], and labels, in file order."""
    some = list(digits.prepared(cache_dir).as_dataset(split=split).as_numpy_iterator())
    images = np.stack([each["image"] for each in some]) / 255
    return images.reshape(len(some), 64), np.array([each["label"] for each in some])


def probabilities(run: Run, cache_dir: str, count: int) -> np.ndarray:
    """Returns the predictions of the averaged network for the test split, by NumPy.

    The statistics are the means over the batches of the first epoch, without dropout.
    """
    paths = catalog.list_checkpoints(catalog.best_directory(str(run.run_dir)))
    saved = {each.facts["step"]: each.arrays for each in map(catalog.read, paths)}
    chosen = [saved[step] for step in best_steps(run)[:count]]
    group = "ema/" if any(name.startswith("ema/") for name in chosen[0]) else "model/"

    def mean(name: str) -> np.ndarray:
        return np.mean([arrays[f"{group}layers/{name}"].astype(np.float64) for arrays in chosen], 0)

    def hidden(x: np.ndarray) -> np.ndarray:
        bias = mean("1/bias") if f"{group}layers/1/bias" in chosen[0] else 0.0
        return np.maximum(x @ mean("1/kernel") + bias, 0)

    inputs, _ = split_of(cache_dir, "train")
    inputs = inputs[: len(inputs) - run.result["validation"]["examples"]]
    shuffled = hidden(inputs[order.permutation(0, 0, len(inputs))])
    batches = [shuffled[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
    assert len(batches) == STEPS
    sizes = [len(each) for each in batches]
    moving_mean = np.average([each.mean(0) for each in batches], 0, sizes)
    variance = np.average([each.var(0) for each in batches], 0, sizes)
    x = (hidden(split_of(cache_dir, "test")[0]) - moving_mean) / np.sqrt(variance + 1e-3)
    x = (x * mean("2/scale") + mean("2/offset")) @ mean("4/kernel") + mean("4/bias")
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_best_checkpoints(run: Run):
    """The three best evaluations are kept, and best names the first of them, as ever."""
    newest = catalog.load_newest(str(run.run_dir))
    assert newest is not None and newest.best_steps == best_steps(run)[:3]
    paths = catalog.list_checkpoints(catalog.best_directory(str(run.run_dir)))
    assert sorted(catalog.read_metadata(path)["step"] for path in paths) == sorted(
        newest.best_steps
    )
    assert run.result["best"]["step"] == newest.best_steps[0]


@pytest.mark.parametrize("count", [2, seldom(3)])
def test_all_modes_agree_with_numpy(warm: Warm, run: Run, cache_dir: str, count: int):
    """Evaluation, prediction and export use the same averaged network with new statistics."""
    expected, (_, labels) = probabilities(run, cache_dir, count), split_of(cache_dir, "test")
    outcome = asked(warm, run, "--mode=predict", "--split=test", count=count)
    assert outcome.status == 0, outcome.said()
    steps = ", ".join(map(str, best_steps(run)[:count]))
    said = f"the average of the {count} best weights, of steps {steps}, {run.run_dir}/best"
    assert f"predicting by {said}" in outcome.out
    predicted = json.loads(outcome.out.splitlines()[-1])
    right = int((expected.argmax(-1) == labels).sum())
    assert predicted["right"] == right

    outcome = asked(warm, run, "--mode=export", count=count)
    assert outcome.status == 0, outcome.said()
    about = json.loads(outcome.out.splitlines()[-1])
    assert about["weights"] == f"the average of the {count} best weights, of steps {steps}"
    serve = tf.saved_model.load(str(run.run_dir / "export")).signatures["serving_default"]
    images = (split_of(cache_dir, "test")[0] * 255).round().astype(np.uint8)
    served = serve(images=tf.constant(images.reshape(-1, 8, 8, 1)))
    np.testing.assert_allclose(served["probabilities"], expected, rtol=1e-3, atol=1e-5)

    outcome = asked(warm, run, "--mode=evaluate", count=count)
    assert outcome.status == 0, outcome.said()
    scores = json.loads(outcome.out.splitlines()[-1])
    assert f"evaluating {said}" in outcome.out
    assert scores["weights"] == f"the average of the {count} best weights, of steps {steps}"
    assert scores["test"]["accuracy"] == pytest.approx(right / len(labels), abs=1e-6)
    loss = -np.log(expected[np.arange(len(labels)), labels]).mean()
    assert scores["test"]["loss"] == pytest.approx(loss, rel=1e-3)


def test_devices_agree(warm: Warm, run: Run):
    one = evaluated(warm, run, "--strategy=cpu")
    two = evaluated(warm, run, "--strategy=cpu", "--virtual_devices=2")
    for split in ("validation", "test"):
        assert two[split]["loss"] == pytest.approx(one[split]["loss"], rel=1e-5)
        assert two[split]["accuracy"] == one[split]["accuracy"]


def test_report(warm: Warm, run: Run):
    outcome = asked(warm, run, "--mode=report")
    assert outcome.status == 0, outcome.said()
    assert "reporting on the average of the 2 best weights, of steps" in outcome.out


def test_augmentation_does_not_matter(warm: Warm, tmp_path: Path):
    """A run with augmentation and mixup makes statistics of the examples as they are."""
    (tmp_path / "normed.py").write_text(MODEL)
    load = f"--load={tmp_path / 'normed.py'}"
    options = (load, *OPTIONS, "--epochs=2", "--keep_best=2", "--augment=shift:1,mixup")
    augmented = warm.train(tmp_path / "run", *options)
    scores = [
        evaluated(warm, augmented, *options)["test"]["loss"]
        for options in ((), ("--augment=",), ("--feed=stream",))
    ]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode=evaluate", "--weights=average:4"), "keeps 3 of the best checkpoints, of step"),
        (("--mode=evaluate", "--follow"), "--follow evaluates every checkpoint as it is"),
        (
            ("--mode=predict", "--split=test", "--train_split=train[:300]"),
            "the data set is not the one that the run was trained on",
        ),
    ],
)
def test_refuses(warm: Warm, run: Run, options: tuple[str, ...], said: str):
    outcome = asked(warm, run, *options)
    assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome.said()
    assert said in outcome.err
