"""Tests that XLA-compiled training matches the uncompiled graph and satisfies the laws."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from engine.assembly import threads
from engine.assembly.registry import SOURCES
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.config.schema import Config, replaced
from engine.runtime.errors import StepError
from engine.tasks.classification import Classification
from engine.tasks.registry import TASKS
from engine.verify.bounds import UNIT_ROUNDOFF, bound
from engine.verify.differences import difference
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import run_steps_measured, state_bytes, take, weights
from tapeline import models
from tests import rounding
from tests.choices import Rare, choices, seldom
from tests.laws.networks import BUILT_IN, FAMILIES, law_ids, short_training, task_of
from tests.laws.product import assembled

SPLIT = {"train_split": "train[:77]", "global_batch_size": 18}
STEPS = 10
JITS = ("loop", "step")


@models.register("law_dense")
def law_dense(outputs) -> list[models.Layer]:
    """Returns a smooth dense network, without ReLU."""
    return [models.Flatten(), models.Dense(24), models.Dropout(0.4), models.Dense(outputs.shape[0])]


FEATURES = [
    {},
    {"accumulate": 4, "augment": "crop,randaugment:1:9,shift:1,rotation:10,mixup:0.3"},
    {"precision": "mixed_bfloat16", "optimizer": "momentum"},
    {"precision": "mixed_float16", "clip_norm": 0.5, "ema": 0.9},
    Rare({"optimizer": "lamb", "schedule": "cosine"}),
    {"optimizer": "muon", "momentum": 0.95},
    Rare({"model": "law_linear", "optimizer": "nesterov"}),
]


@functools.cache
def xla_has_float16() -> bool:
    """Returns whether XLA compiles float16 for this processor, which needs F16C."""
    halved = tf.function(
        lambda x: tf.cast(tf.exp(tf.cast(x, tf.float16)), tf.float32), jit_compile=True
    )
    try:
        halved(tf.ones([8]))
    except tf.errors.InternalError:
        return False
    return True


def skip_without_float16() -> None:
    if not xla_has_float16():
        pytest.skip("XLA compiles no float16 for a processor without F16C")


@pytest.mark.parametrize(("options", "jit"), choices(FEATURES, ["loop", "step"]))
def test_compiled_matches_plain_graph(tmp_path, options, jit):
    """The final weights match those of the uncompiled graph within rounding."""
    options = {"model": "law_dense", **SPLIT, **options}
    if options.get("precision") == "mixed_float16":
        skip_without_float16()
    plain, compiled = (assembled(str(tmp_path), jit=each, **options) for each in ("off", jit))
    assert (plain.jit, compiled.jit) == ("off", jit)
    far = run_steps_measured(plain, STEPS)
    take(compiled, STEPS)
    augmented = [8, 8] if "augment" in options else []  # a warped pixel sums over a row, twice
    batch = SPLIT["global_batch_size"]
    error = rounding.of_sums(*augmented, *rounding.lengths(plain.state.model, batch))
    if (precision := options.get("precision")) is not None:
        error += 4 * UNIT_ROUNDOFF[precision]  # layer outputs are rounded: bounds.py
    optimizer = plain.config.optimizer.optimizer
    for name, value in weights(plain).items():
        apart, length = (np.linalg.norm(each) for each in (value - weights(compiled)[name], value))
        moves = rounding.of_moves(error, optimizer, value.shape)
        assert apart <= rounding.of_weights(moves, far[name], float(length), STEPS), name
    for parts in (plain, compiled):
        parts.close()


@pytest.mark.parametrize("jit", [seldom("step"), "loop"])
def test_steps_per_call_bitwise(tmp_path, jit):
    """Runs with any number of steps per call end bitwise equal and are traced once."""
    found = []
    for at_once in (1, 1 << 62):
        parts = assembled(str(tmp_path), model="law_dense", jit=jit, ema=0.9, **SPLIT)
        take(parts, STEPS, at_once=at_once)
        assert parts.traces == {"train": 1}
        found.append(state_bytes(parts))
        parts.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(("model", "jit"), choices(["law_dense", "mlp"], ["loop", "step"]))
def test_bad_step_is_skipped(tmp_path, jit, model):
    """A step with an infinite gradient changes only the step counter, and ends the loop's call."""
    task = FaultInjectingTask(Classification())
    options = {"model": model, "jit": jit, "ema": 0.9, "optimizer": "adam", **SPLIT}
    parts = assembled(str(tmp_path), task=task, **options)
    take(parts, 1)
    moving = [parts.state.step]
    before = state_bytes(parts, but=moving)
    task.inject(3, np.inf)
    taken = parts.loop.run(3)
    assert (taken.steps, taken.finite) == (1, False)
    assert state_bytes(parts, but=moving) == before
    assert (int(parts.state.step), int(parts.state.updates)) == (2, 1)
    task.heal()
    assert parts.loop.run(2).finite and int(parts.state.updates) == 3
    parts.close()


def test_resume_is_bitwise(tmp_path):
    """A compiled run resumed after 4 of 10 steps ends bitwise equal to an uninterrupted run."""
    skip_without_float16()
    whole, begun, again = (
        assembled(str(tmp_path), model="law_dense", jit="loop", precision="mixed_float16", **SPLIT)
        for _ in range(3)
    )
    take(whole, STEPS)
    CheckpointManager(str(tmp_path), take(begun, 4).state, keep=2).save_and_wait()
    newest, _ = Restorer(str(tmp_path), again.state).newest()
    assert newest is not None
    take(again, STEPS - 4)
    assert state_bytes(whole) == state_bytes(again)
    for parts in (whole, begun, again):
        parts.close()


def test_step_losses_under_xla(tmp_path):
    """The compiled loop returns the losses of all steps, within rounding of the plain graph's."""
    told = []
    for jit in ("off", "loop"):
        parts = assembled(str(tmp_path), model="law_dense", jit=jit, spike=20.0, **SPLIT)
        told.append(parts.loop.run(5).losses)
        parts.close()
    assert told[1].shape == (5,) and told[1] == pytest.approx(told[0], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "jit"), choices(["law_dense", "mlp", "logistic"], ["loop", "step", "off"])
)
def test_feeds_agree_bitwise(tmp_path, model, jit):
    found = []
    for feed in ("resident", "stream"):
        parts = assembled(str(tmp_path), model=model, feed=feed, jit=jit, **SPLIT)
        found.append(state_bytes(take(parts, STEPS)))
        parts.close()
    assert found[0] == found[1]


@models.register("law_foreign")
def law_foreign(outputs) -> list[models.Layer]:
    """Returns a network with a layer class that is defined outside the engine."""

    class Mine(models.Flatten):
        pass

    return [Mine(), models.Dense(outputs.shape[0])]


@models.register("law_sorting")
def law_sorting(outputs) -> list[models.Layer]:
    """Returns a network with such a layer, of an operation that XLA for CPUs is slow at."""

    class Sorted(models.Flatten):
        def __call__(self, x, context):
            return tf.sort(super().__call__(x, context))

    return [Sorted(), models.Dense(outputs.shape[0])]


@models.register("law_pool")
def law_pool(outputs) -> list[models.Layer]:
    """Returns a network with a max pool and no convolution."""
    return [models.MaxPool(), models.Flatten(), models.Dense(outputs.shape[0])]


@pytest.mark.parametrize(
    ("options", "jit"),
    [
        ({"model": "law_pool"}, "loop"),
        ({"model": "logistic"}, "loop"),
        ({"model": "mlp"}, "loop"),
        ({"model": "cnn"}, "off"),
        ({"model": "law_foreign"}, "loop"),
        ({"model": "law_sorting"}, "off"),
        ({"model": "logistic", "feed": "stream"}, "loop"),
        ({"model": "logistic", "shards": 2}, "off"),
        ({"model": "logistic", "augment": "shift:1"}, "off"),
        ({"model": "logistic", "replicas": 2}, "off"),
    ],
    ids=str,
)
def test_auto_jit(tmp_path, options, jit):
    """Without `--jit`, the mode is "loop" or "off", depending on model and options."""
    parts = assembled(str(tmp_path), **SPLIT, **options)
    assert parts.jit == jit
    parts.close()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"model": "logistic"}, 1),
        ({"model": "mlp", "hidden": (40,)}, 1),
        ({"model": "mlp", "hidden": (64,)}, 0),
        ({"model": "mlp", "hidden": (40,), "jit": "off"}, 0),
        ({"model": "logistic", "shards": 2}, 0),
        ({"model": "logistic", "augment": "shift:1"}, 0),
        ({"model": "logistic", "virtual_devices": 2}, 0),
        ({"model": "logistic", "strategy": "gpu"}, 0),
        ({"model": "cnn"}, 0),
    ],
    ids=str,
)
def test_one_thread_if_small(options, count):
    """A small compiled network uses one thread; otherwise the setting is 0, one thread per core."""
    source = SimpleNamespace(inputs=tf.TensorSpec([28, 28, 1]), classes=10)
    assert threads.threads(replaced(Config(), **options), source) == count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jit": "loop", "replicas": 2}, "--jit=loop: is for one device.*; give --jit=step"),
        ({"jit": "loop", "shards": 2}, "--shards promises the same .*; give --jit=step"),
    ],
    ids=str,
)
def test_unsupported_jit_raises(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        assembled(str(tmp_path), **{"model": "logistic", **SPLIT, **options})


@pytest.mark.parametrize(
    ("model", "jit"),
    [
        ("seed_002", "loop"),
        ("speedrun", "step"),
        *(seldom(model, jit) for model in BUILT_IN for jit in JITS),
    ],
)
def test_built_in_network_twice(tmp_path, monkeypatch, model, jit):
    """Each built-in network trains when XLA compiles it; the same seed gives the same bits."""
    monkeypatch.setitem(SOURCES._entries, "law_ids", law_ids)
    options = short_training(model)
    if model not in FAMILIES:
        options["image_size"] = (18, 18)
    found = []
    for _ in range(2):
        parts = assembled(str(tmp_path), task=task_of(model), jit=jit, **options)
        assert parts.jit == jit
        before = weights(parts)
        take(parts, 3)
        assert int(parts.state.updates) == 3
        assert any((value != before[name]).any() for name, value in weights(parts).items())
        found.append(state_bytes(parts))
        parts.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "options",
    [
        {"model": "law_dropout", "accumulate": 2, "clip_norm": 0.5},
        # The statistics are reduced in the forward pass, so that XLA compiles the update alone.
        seldom({"model": "law_norm", "ema": 0.9, "optimizer": "momentum"}),
    ],
    ids=str,
)
def test_replicas_match_one_device(tmp_path, options):
    """L1, L2, L7: compiled steps on two replicas match those on one, as for uncompiled steps."""
    one, two = (
        assembled(str(tmp_path), replicas=replicas, jit="step", **SPLIT, **options)
        for replicas in (1, 2)
    )
    assert two.jit == "step"
    path = run_steps_measured(one, STEPS)
    take(two, STEPS)
    assert two.traces == {"train": 1}
    theirs = weights(two)
    for name, value in weights(one).items():
        allowed = bound("float32", path[name], float(np.linalg.norm(value)))
        assert difference(value, theirs[name]) <= allowed, name
    for parts in (one, two):
        parts.close()


class WithVariable(Classification):
    """Classification whose losses are multiplied by a variable of the task."""

    def __init__(self, metrics=None) -> None:
        super().__init__(metrics=metrics)
        self.factor = tf.Variable(1.5, trainable=False)

    def __call__(self, model, batch, context):
        """Returns the output of the classification with larger losses."""
        output = super().__call__(model, batch, context)
        return output._replace(losses=output.losses * self.factor)


def test_variable_of_a_task(tmp_path, monkeypatch):
    """What XLA compiles on two replicas may read a variable of the task."""
    monkeypatch.setitem(TASKS._entries, "classification", WithVariable)
    options = {"model": "law_dense", "jit": "step", **SPLIT}
    one, two = (assembled(str(tmp_path), replicas=n, **options) for n in (1, 2))
    for parts in (one, two):
        take(parts, 3)
    theirs = weights(two)
    for name, value in weights(one).items():
        assert difference(value, theirs[name]) < 1e-5, name
    for parts in (one, two):
        parts.close()


def test_variable_of_another_device(tmp_path):
    """A variable that XLA cannot read on a replica is named, with the remedy."""
    task, where = WithVariable(), str(tmp_path)
    parts = assembled(where, replicas=2, task=task, model="law_dense", jit="step", **SPLIT)
    with pytest.raises(StepError, match=r"resource Variable.*: make it in the __init__"):
        parts.loop.run(1)
    parts.close()


def test_bad_step_of_one_replica(tmp_path):
    """L2: an infinite gradient on the second replica leaves both unchanged; then both train on."""
    task = FaultInjectingTask(Classification())
    options = {"model": "law_dropout", "jit": "step", "ema": 0.9, **SPLIT}
    parts = assembled(str(tmp_path), replicas=2, task=task, **options)
    take(parts, 1)
    moving = [parts.state.step]
    before = state_bytes(parts, but=moving)
    task.inject(SPLIT["global_batch_size"] - 1, np.inf)
    assert not parts.loop.run(1).finite
    assert state_bytes(parts, but=moving) == before
    assert (int(parts.state.step), int(parts.state.updates)) == (2, 1)
    task.heal()
    assert parts.loop.run(2).finite and int(parts.state.updates) == 3
    for variable in parts.state.model.trainable_variables:
        first, second = parts.strategy.experimental_local_results(variable)
        assert np.isfinite(first).all() and np.array_equal(first, second)
    parts.close()


@pytest.mark.parametrize(
    ("model", "precision", "others"),
    [("law_norm", "mixed_bfloat16", 1), seldom("law_dropout", "float32", 4)],
)
def test_shards_bitwise_on_other_devices(tmp_path, model, precision, others):
    """With shards, compiled runs end bitwise equal on any devices, also after a resume on others.

    The programs are the same on any number of devices: XLA compiles one shard, and the update.
    """
    options = {"model": model, "precision": precision, "jit": "step", "shards": 4, **SPLIT}
    whole, begun, again = (
        assembled(str(tmp_path), replicas=replicas, **options) for replicas in (1, 2, others)
    )
    CheckpointManager(str(tmp_path), take(begun, 4).state, keep=2).save_and_wait()
    assert Restorer(str(tmp_path), again.state).newest()[0] is not None
    assert state_bytes(take(whole, STEPS)) == state_bytes(take(again, STEPS - 4))
    assert state_bytes(take(begun, STEPS - 4)) == state_bytes(whole)
    for parts in (whole, begun, again):
        parts.close()


class TensorFlowsPool(models.MaxPool):
    """Max pool with TensorFlow's gradient."""

    def __call__(self, x, context):
        """Returns the maximum of each window."""
        return tf.nn.max_pool2d(x, self.size, self.stride, self.padding)


@models.register("law_other_pool")
def law_other_pool(outputs) -> list[models.Layer]:
    """Returns a network with a max pool whose gradient XLA cannot compile."""
    return [
        models.Convolution(2),
        TensorFlowsPool(),
        models.Flatten(),
        models.Dense(outputs.shape[0]),
    ]


@models.register("law_communicating")
def law_communicating(outputs) -> list[models.Layer]:
    """Returns a network that reduces over the replicas in its forward pass, without statistics."""

    class Centred(models.Flatten):
        def __call__(self, x, context):
            x = super().__call__(x, context)
            return x - context.all_reduce([tf.reduce_sum(x, 0)])[0]

    return [Centred(), models.Dense(outputs.shape[0])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "law_other_pool"}, r"max pool \(0_conv.*\): use tl.models.MaxPool"),
        ({"model": "law_communicating", "replicas": 2}, "reduces over the replicas"),
    ],
    ids=str,
)
def test_refuses_what_xla_cannot_compile(tmp_path, options, words):
    """What XLA cannot compile is named when the loop is traced, before the first step."""
    parts = assembled(str(tmp_path), jit="step", **SPLIT, **options)
    with pytest.raises(ValueError, match=words):
        parts.loop.run(1)
    parts.close()
