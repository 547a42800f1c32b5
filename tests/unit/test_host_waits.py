"""No operation between two steps of a call waits for a copy between a GPU and the host.

TensorFlow registers the kernels of GPUs on every machine, so a traced loop is placed without a GPU.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.core.loop import Loop
from engine.tasks.metrics import collected
from engine.tasks.task import Task, TaskOutput
from pipelines.feeds import gatherable
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tests import harness, placement
from tests.choices import seldom
from tests.laws import test_compositions, test_foreign_models
from tests.laws.product import assembled

# Operations of the loop that may wait, by type, each with its reason: at most three. There is none.
ALLOWED: dict[str, str] = {}

DIGITS = {
    "train_split": "train[:77]",
    "global_batch_size": 8,
    "jit": "off",
    "schedule": "cosine",
    "model": "mlp",
}
RUNS = [
    {"ema": 0.9, "clip_norm": 0.5},
    {"feed": "stream", "shards": 4, "optimizer": "momentum"},
    {"model": "cnn", "precision": "mixed_float16", "accumulate": 2, "spike": 10},
    {"model": "law_norm", "precision": "mixed_bfloat16", "optimizer": "lamb", "clip_value": 1},
    {"augment": "shift:1,rotation:10,mixup:0.3", "optimizer": "adamw", "schedule": "one_cycle"},
    {"jit": "step", "accumulate": 2, "optimizer": "muon"},
    {"metrics": "accuracy,top_3,f1,calibration_error,auc", "optimizer": "lion"},
    seldom({"optimizer": "rmsprop", "schedule": "plateau", "label_smoothing": 0.1}),
    seldom({"optimizer": "nesterov", "schedule": "exponential", "weight_decay": 0.01}),
    seldom({"optimizer": "sgd", "schedule": "step", "warmup_fraction": 0.1}),
]


@pytest.fixture(autouse=True)
def feeds_for_gpu(monkeypatch):
    monkeypatch.setattr(gatherable, "needed", lambda: True)


def waiting(loop):
    """Returns the faults of a loop as assembly makes it for a GPU, but those of `ALLOWED`.

    The loop is a `Loop`, or an `Evaluation`.
    """
    if isinstance(loop, Loop):
        loop = dataclasses.replace(loop, early_exit=False)
    with pytest.MonkeyPatch.context() as patch:  # some code has another graph for GPUs
        patch.setattr(tf.config, "list_logical_devices", lambda kind=None: [kind])
        found = placement.faults(loop.graph())
    return [str(each) for each in found if each.op not in ALLOWED]


def test_few_exceptions():
    assert len(ALLOWED) <= 3 and all(ALLOWED.values())


@pytest.mark.parametrize("options", RUNS, ids=lambda each: "-".join(map(str, each.values())))
def test_built_in_networks(tmp_path, options):
    parts = assembled(str(tmp_path), **{**DIGITS, **options})
    assert waiting(parts.loop) == []
    parts.close()


class Collecting(Task):
    """Task whose metric collects the labels and logits of a whole split."""

    def __init__(self):
        self.metrics = {"mine": collected(lambda labels, logits: 0.5)}

    def output_spec(self, source):
        return tf.TensorSpec([10])

    def __call__(self, model, batch, context):
        logits, labels = model(batch.inputs, context), tf.cast(batch.targets, tf.int64)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return TaskOutput(losses, {"mine": (labels, logits)})


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (None, {"feed": "stream", "model": "law_norm", "precision": "mixed_bfloat16"}),
        (Collecting(), {"monitor": "validation_loss"}),
        seldom(None, {"model": "cnn", "shards": 2, "ema": 0.9, "metrics": "auc"}),
        seldom(Collecting(), {"monitor": "validation_loss", "accumulate": 2, "shards": 2}),
    ],
)
def test_evaluation(tmp_path, task, options):
    held_out = {"validation_split": "train[77:120]"}
    parts = assembled(str(tmp_path), task=task, **{**DIGITS, **held_out, **options})
    assert waiting(parts.evaluations["validation"]) == []
    parts.close()


class NextId(Task):
    """Task of next-token prediction; the loss of a sequence is the mean cross-entropy."""

    def __call__(self, model, batch, context):
        logits, targets = model(batch.inputs, context), tf.cast(batch.targets, tf.int64)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return TaskOutput(tf.reduce_mean(losses, 1))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.uint8, {}),
        seldom(np.int32, {"accumulate": 2, "precision": "mixed_bfloat16"}),
    ],
)
def test_transformer(dtype, options):
    ids = test_compositions.sequences().astype(dtype)
    layout = BatchLayout(1, options.pop("accumulate", 1))
    plan = BatchPlan(examples=len(ids), global_batch_size=8, layout=layout, seed=0)
    layers, shape = test_compositions.transformer(), (test_compositions.TOKENS,)
    run = harness.put_together(
        lambda: test_compositions.Composed(layers, shape, seed=0),
        lambda strategy: InMemoryFeed(ids[:, :-1], ids[:, 1:], plan, strategy),
        NextId(),
        layout=layout,
        **options,
    )
    assert waiting(run.loop) == []


@pytest.mark.parametrize("make", [test_foreign_models.convolutional, test_foreign_models.module])
def test_foreign_model(make):
    assert waiting(test_foreign_models.training(make, optimizer="adamw").loop) == []


def test_rare_dropout():
    layers = [models.Flatten(), models.Dropout(1e-4), models.Dense(3)]
    assert waiting(harness.training(*harness.pictures(20), network=lambda: layers).loop) == []


@pytest.mark.parametrize("shards", [0, seldom(4)])
def test_several_devices(monkeypatch, shards):
    """Replicas on virtual devices stand for GPUs; the host is a device of its own."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:1", "CPU:2"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    monkeypatch.setattr(harness, "strategy_of", lambda replicas: strategy)
    run = harness.training(
        *harness.pictures(20), replicas=2, accumulate=2, shards=shards, precision="mixed_float16"
    )
    assert waiting(run.loop) == []


def test_early_exit_waits(tmp_path):
    """The loop for CPUs would wait on a GPU: for its condition, and for the update's."""
    parts = assembled(str(tmp_path), **DIGITS)
    found = {fault.op for fault in placement.faults(parts.loop.graph()) if fault.why == "to host"}
    assert {"While", "If"} <= found
    parts.close()


def loop_of(body, *start, host=False):
    """Returns the faults of a loop of three steps that counts in the dtype of `start[0]`."""

    @tf.function(autograph=False)
    def looped(*start):
        def condition(index, *_):
            with tf.device("CPU:0" if host else None):
                return index < 3

        return tf.while_loop(condition, body, start)

    return placement.faults(looped.get_concrete_function(*start))


def test_counter_of_int32_stays_on_host():
    assert loop_of(lambda i: (i + 1,), tf.constant(0)) == []


def test_counter_of_int64_is_copied():
    """TensorFlow adds an Identity without a device at the end of a body."""
    first = tf.constant(0, tf.int64)

    def body(i):
        with tf.device("CPU:0"):
            return (i + 1,)

    assert "to host" in {fault.why for fault in loop_of(body, first, host=True)}
    assert [fault.op for fault in loop_of(lambda i: (i + 1,), first)] == ["StatelessWhile"]


def test_finds_branch():
    def body(i, x):
        return i + 1, tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x)

    (fault,) = loop_of(body, tf.constant(0), tf.ones([2]))
    assert (fault.op, fault.why) == ("StatelessIf", "to host")


def test_finds_missing_kernel():
    def body(i, x):
        return i + 1, tf.gather(x, tf.cast(x, tf.int64))

    found = loop_of(body, tf.constant(0), tf.ones([2], tf.uint8))
    assert ("GatherV2", "no kernel") in {fault[:2] for fault in found}


def test_finds_copy_to_device():
    def body(i, x):
        return i + 1, x + tf.cast(i, tf.float32)

    (fault,) = loop_of(body, tf.constant(0), tf.ones([2]))
    assert (fault.op, fault.why) == ("Cast", "to device")
