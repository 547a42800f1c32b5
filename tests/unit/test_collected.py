"""Collected metrics: functions, in NumPy, of every example of a split once, in order."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.core import metrics
from engine.core.collected import Collection
from engine.core.early_stopping import resolve
from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.tasks.classification import Classification
from engine.tasks.metrics import Accuracy, Mean, collected
from engine.tasks.task import Task, TaskOutput
from engine.verify.fault_injection import FaultInjectingTask
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tests.harness import pictures, scaled, training
from tests.laws.product import assembled

EXAMPLES = 37
IMAGES, _ = pictures(EXAMPLES, seed=1)
INDICES = np.arange(EXAMPLES, dtype=np.int32)
# Values of each dtype that a task may give, of each example.
VALUES = (
    INDICES.astype(np.int64) + (1 << 62) + 1,  # no float64 has these values
    np.arange(EXAMPLES * 2).reshape(EXAMPLES, 1, 2) / 3,
    np.where(INDICES % 3, -0.0, np.nan).astype(np.float32),
    np.stack([INDICES, 255 - INDICES], 1).astype(np.uint8),
    INDICES % 2 == 0,
    (INDICES / 8).astype(tf.bfloat16.as_numpy_dtype),
)
WEIGHTS = 1 + INDICES.astype(np.float32)


class Recorded(Task):
    """A task that gives `VALUES` of its targets, the indices of examples, and weights."""

    def __init__(self, **options):
        self.seen = []
        self.metrics = {
            "first": Mean(),
            "recorded": collected(self.record, **options),
            "last": collected(lambda *given: len(given)),
        }

    def record(self, *given, weights):
        self.seen.append((*given, weights))
        return weights.sum()

    def __call__(self, model, batch, context):
        given = [tf.gather(tf.constant(each), batch.targets) for each in VALUES]
        weights = tf.gather(tf.constant(WEIGHTS), batch.targets)
        of = {"first": (weights,), "recorded": given, "last": given}
        return TaskOutput(tf.ones_like(weights), of, weights)


def assert_recorded(task, times=1):
    """Asserts that each call of the function got the values of all examples, to the bit."""
    assert len(task.seen) == times
    expected = (*VALUES[:-1], (INDICES / 8).astype("f4"), WEIGHTS)
    for seen in task.seen:
        for found, wanted in zip(seen, expected, strict=True):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            assert found.tobytes() == wanted.tobytes()


@pytest.fixture(scope="module")
def runs():
    return {replicas: training(IMAGES, INDICES % 3, replicas=replicas) for replicas in (1, 2, 4)}


@pytest.mark.parametrize(
    ("replicas", "shards", "batch"), [(1, 0, 8), (1, 4, 8), (2, 0, 5), (2, 4, 42), (4, 0, 8)]
)
def test_every_example_once_in_order(runs, replicas, shards, batch):
    """All values have the bits that the task gave, for any layout and with partial batches."""
    task = Recorded()
    means = dataclasses.replace(runs[replicas], task=task).evaluate(IMAGES, INDICES, batch, shards)
    assert list(means) == ["loss", "first", "recorded", "last", "examples"]
    assert means["recorded"] == WEIGHTS.sum() and means["last"] == len(VALUES)
    assert_recorded(task)


def test_interrupted_then_repeated(runs, monkeypatch):
    """An evaluation starts from no rows, with one trace; a call returns few steps at a time."""
    layout = BatchLayout(1, 2, 2)  # a row of padding is where another micro-batch has an example
    plan = BatchPlan(examples=EXAMPLES, global_batch_size=5, layout=layout, seed=None)
    run, task, calls = runs[1], Recorded(), []
    feed = InMemoryFeed(IMAGES, INDICES, plan, run.strategy)
    verified = FaultInjectingTask(task)  # the task that verify evaluates
    step = evaluation_step(model=run.state.model, task=verified, preprocess=scaled)
    evaluation = Evaluation(run.strategy, feed, step, verified)
    add = Collection.add
    monkeypatch.setattr(Collection, "add", lambda *of: (calls.append(of[1][0].shape), add(*of)))
    polls = iter([False, False, True])
    assert evaluation.run(lambda: next(polls)) is None
    _, rows, values = calls[0]
    monkeypatch.setattr("engine.core.collected._CALL_BYTES", 3 * 8 * rows * values)
    first, again = evaluation.run(), evaluation.run()
    assert first == again and evaluation.traces == 1
    assert max(steps for steps, _, _ in calls) <= 3
    assert_recorded(task, 2)


def test_bits_of_training(tmp_path):
    """The weights, the sums and what XLA compiles are those of a run without the metric."""
    trained = []
    for more in ({}, {"mine": collected(lambda labels, logits: 0.5)}):
        task = Classification(metrics={**more, "accuracy": Accuracy()})
        parts = assembled(
            str(tmp_path), task=task, train_split="train[:100]", model="mlp", global_batch_size=25
        )
        parts.loop.run(2)
        assert parts.jit == "loop"
        state = [parts.state.sums, *parts.state.model.variables]
        trained.append([each.numpy().tobytes() for each in state])
        assert "mine" not in metrics.step_means(parts.state.sums.numpy(), task.metrics)
        parts.close()
    assert trained[0] == trained[1]


def failing(*given, weights):
    raise KeyError("no such key")


@pytest.mark.parametrize(
    ("function", "options", "argument", "message"),
    [
        (failing, {}, tf.identity, ": KeyError: 'no such key'$"),
        (lambda *given: np.ones(3), {}, tf.identity, ": TypeError: the function returns an array"),
        (max, {"max_bytes": 295}, tf.identity, " collects 296 bytes of 37 examples, more than max"),
        (max, {}, tf.strings.as_string, " cannot collect string"),
        (max, {}, lambda rows: tf.zeros([8, rows[0]]), " cannot collect values of shape .None.,"),
    ],
)
def test_errors(runs, function, options, argument, message):
    class Simple(Task):
        metrics = {"mine": collected(function, **options)}  # noqa: RUF012

        def __call__(self, model, batch, context):
            return TaskOutput(
                tf.ones_like(batch.mask), {"mine": (batch.targets, argument(batch.targets))}
            )

    run = dataclasses.replace(runs[1], task=Simple())
    with pytest.raises(ValueError, match=f"^metric mine{message}"):
        run.evaluate(IMAGES, INDICES, 8)


def test_direction():
    assert collected(max).better == "higher" and collected(max, "lower").better == "lower"
    with pytest.raises(ValueError, match="better='max': give 'higher' or 'lower'"):
        collected(max, "max")


def test_monitor():
    """Only the value of the validation split can be watched."""
    names, sets = ["accuracy", "mine"], ["validation"]
    assert resolve("validation_mine", names, sets, ["mine"]) == ("validation", "mine")
    with pytest.raises(
        ValueError, match=r"--monitor=train_mine: only evaluation .*=validation_mine"
    ):
        resolve("train_mine", names, sets, ["mine"])
    with pytest.raises(ValueError) as refused:
        resolve("train_mien", names, sets, ["mine"])
    assert "train_accuracy" in str(refused.value) and "train_mine" not in str(refused.value)
