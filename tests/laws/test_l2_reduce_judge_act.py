"""Tests of law L2: gradients are reduced first, then checked, clipped and applied everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.clipping import Clip
from engine.optim.precision import LossScale
from engine.tasks.classification import Classification
from engine.verify.fault_injection import FaultInjectingTask
from pipelines import BatchLayout
from tapeline import models
from tests import papers
from tests.harness import CLASSES, pictures, put_together, same_bits, training
from tests.vectors import Linear, Vectors, Weights


def named(layout: BatchLayout) -> str:
    return f"{layout.replicas}x{layout.micro_batches}" + f"/{layout.shards}" * (layout.shards > 0)


# Clipping

# Gradients of the two halves of the replicas; the first two sums have a norm below 1.
OPPOSED = (
    ([10.0, 0.0], [-10.0, 0.5]),
    ([10.0, 0.0], [-10.75, 0.5]),
    ([13.0, 0.0], [-10.0, 4.0]),
    ([-130.0, 40.0], [100.0, -80.0]),
)
CLIPS = (Clip(norm=1.0), Clip(value=1.0), Clip(norm=1.0, value=2.0))
CUT = (
    BatchLayout(2),
    BatchLayout(4),
    BatchLayout(1, 2),
    BatchLayout(2, 2),
    BatchLayout(4, 2),
    BatchLayout(1, 1, 4),
    BatchLayout(2, 1, 4),
    BatchLayout(2, 2, 4),
    BatchLayout(4, 2, 4),
)


def opposed(layout: BatchLayout, ours, theirs) -> list[list]:
    """Returns steps with the gradients `ours` and `theirs` in different shards or micro-batches.

    A step is a list with a gradient per row, of which the engine takes the mean: `ours + theirs`.
    In the first step, shards differ; there is no such step if the layout has only one shard. In the
    next step, micro-batches differ; there is no such step if the layout has only one micro-batch.
    """
    rows = np.arange(layout.replicas * layout.local_micro_batches)
    shard, micro_batch = rows % layout.all_shards, rows // layout.all_shards
    halves = [(shard, layout.all_shards), (micro_batch, layout.micro_batches)]
    return [
        [np.multiply(2.0, ours if at < count / 2 else theirs) for at in places]
        for places, count in halves
        if count > 1
    ]


@pytest.mark.parametrize("clip", CLIPS, ids=["norm", "value", "both"])
@pytest.mark.parametrize("layout", CUT, ids=named)
def test_clip_after_reduction(layout, clip):
    """Clipping applies to the reduced gradient, never to that of a replica or micro-batch."""
    steps = [
        (sum(map(np.array, pair)), rows) for pair in OPPOSED for rows in opposed(layout, *pair)
    ]
    run = put_together(
        lambda: Weights([1.0, 2.0]),
        lambda strategy: Vectors([rows for _, rows in steps], layout),
        Linear(),
        layout=layout,
        optimizer="sgd",
        learning_rate=1.0,
        clip=clip,
    )
    for gradient, _ in steps:
        (before,), norms = run.weights(), run.state.sums.numpy()[-2]
        (after,) = run.take(1).weights()
        (wanted,) = papers.clipped([gradient], clip.norm, clip.value)
        if np.linalg.norm(gradient) < 1:
            assert (before - after).tolist() == gradient.tolist()
        else:
            # The factor, the product and the weight, which is below 8, are rounded.
            assert before - after == pytest.approx(wanted, rel=2**-22, abs=2**-22)
        # The logged gradient norm is the one before clipping.
        found = run.state.sums.numpy()[-2] - norms
        assert found == pytest.approx(np.linalg.norm(gradient), rel=2**-22)


# The finite check

BATCH = 24  # rows; all of these layouts divide it
JUDGED = (BatchLayout(1, 3), BatchLayout(2, 3), BatchLayout(4), BatchLayout(2, 2, 4))
BAD = (np.inf, -np.inf, np.nan)
SCALE = {"initial": 2.0, "growth_steps": 2, "factor": 4.0, "floor": 1.0}


def poisons(layout: BatchLayout):
    """Yields (row, factor, part) of the faults to inject into single steps.

    Infinite and NaN gradients are injected into a random row of each micro-batch on each replica.
    The loss, the metrics and the statistics get an infinity in one of those rows each.
    """
    random = np.random.default_rng(0)
    rows = BATCH // layout.micro_batches // layout.replicas
    places = [
        (micro_batch * layout.replicas + replica) * rows + int(random.integers(rows))
        for replica in range(layout.replicas)
        for micro_batch in range(layout.micro_batches)
    ]
    yield from ((row, factor, "gradient") for row in places for factor in BAD)
    yield from ((int(random.choice(places)), np.inf, part) for part in FaultInjectingTask.PARTS[1:])


def learned(scale: float, run: int, good: bool) -> tuple[float, int]:
    """Returns the expected loss scale, and consecutive finite steps, after a step.

    The settings of the loss scale are `SCALE`.

    Args:
      scale: loss scale before the step.
      run: consecutive finite steps before the step.
      good: whether the step is finite.
    """
    if not good:
        return max(scale / SCALE["factor"], SCALE["floor"]), 0
    return (scale * SCALE["factor"], 0) if run + 1 == SCALE["growth_steps"] else (scale, run + 1)


def kernels(found: dict[str, bytes]) -> list[bytes]:
    """Returns the bytes on each replica of the first convolution's kernel and of the kernel's EMA.

    Args:
      found: result of `Training.everywhere`.
    """
    return [bits for name, bits in found.items() if "/0_convolution/kernel:0/" in name]


@pytest.mark.parametrize("layout", JUDGED, ids=named)
def test_bad_step_updates_nothing(layout):
    """A bad step on one replica updates no replica; the next step trains normally."""
    task, random, scales = FaultInjectingTask(Classification()), np.random.default_rng(1), set()
    run = training(
        *pictures(2 * BATCH),
        batch=BATCH,
        replicas=layout.replicas,
        accumulate=layout.micro_batches,
        shards=layout.shards,
        task=task,
        ema=0.9,
        clip=Clip(norm=1.0),
        make_loss_scale=lambda: LossScale(**SCALE),
    )
    state, expected = run.state, (SCALE["initial"], 0)

    def loss_scale():
        return float(state.loss_scale.value), int(state.loss_scale.finite_steps)

    for row, factor, part in poisons(layout):
        where = f"{part} of row {row} times {factor}"
        before, step, updates = run.everywhere(), int(state.step), int(state.updates)
        task.inject(row, factor, part)
        run.take(1)
        task.heal()
        after, expected = run.everywhere(), learned(*expected, good=False)
        moved = {name.split("/", 1)[1] for name in before if before[name] != after[name]}
        assert moved <= {"step:0/0", "value:0/0", "finite_steps:0/0"}, where
        assert (int(state.step), int(state.updates)) == (step + 1, updates), where
        assert loss_scale() == expected, where
        for turn in range(random.integers(1, 6)):
            run.take(1)
            before, after, expected = after, run.everywhere(), learned(*expected, good=True)
            assert (int(state.updates), loss_scale()) == (updates + turn + 1, expected), where
            pairs = zip(kernels(before), kernels(after), strict=True)
            assert all(old != new for old, new in pairs), where
            scales.add(expected[0])
    assert min(scales) == SCALE["floor"] and max(scales) > SCALE["initial"]  # it shrank and grew
    assert len(kernels(after)) == 2 * layout.replicas
    for name, bits in after.items():
        assert bits == after[name.rsplit("/", 1)[0] + "/0"], name


@pytest.mark.parametrize(
    ("optimizer", "layout"),
    [
        ("adam", BatchLayout(2)),
        ("adam", BatchLayout(2, 2, 4)),
        ("lamb", BatchLayout()),
        ("muon", BatchLayout()),
    ],
    ids=str,
)
def test_bad_steps_leave_no_trace(optimizer, layout):
    """Weights are bitwise equal with and without bad steps between the finite ones."""
    random = np.random.default_rng(2)
    good = random.normal(size=(4, layout.replicas * layout.local_micro_batches, 9)).astype(
        np.float32
    )
    bad = good.copy()
    bad[0, -1, 3], bad[1, 0, 7], bad[2, -1, 0] = BAD

    def trained(*steps):
        run = put_together(
            lambda: Weights(np.ones((2, 3)), np.ones(3)),
            lambda strategy: Vectors(steps, layout),
            Linear(),
            layout=layout,
            optimizer=optimizer,
            ema=0.9,
        ).take(len(steps))
        assert int(run.state.updates) == 4
        return {name: bits for name, bits in run.everywhere().items() if "/step:0/" not in name}

    interrupted = (bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[0], good[3], bad[1])
    assert trained(*interrupted) == trained(*good)


# The loss scale


def flat() -> list[models.Layer]:
    """Returns a network without dropout, whose steps do not depend on the step number."""
    return [models.Flatten(), models.Dense(16, activation="relu"), models.Dense(CLASSES)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_overflow_lowers_loss_scale(replicas):
    """Steps whose scaled gradient overflows are skipped until the loss scale is low enough."""

    def begun_at(scale):
        return training(
            *pictures(8),
            replicas=replicas,
            network=flat,
            shuffle=False,
            precision="mixed_float16",
            make_loss_scale=lambda: LossScale("mixed_float16", initial=scale),
        )

    run = begun_at(2.0**30)
    while not int(run.state.updates):
        run.take(1)
    skipped, fitting = int(run.state.step) - 1, float(run.state.loss_scale.value)
    assert fitting == 2.0 ** (30 - skipped) and skipped > 5
    # From there on it equals a run that starts with this scale and never overflows.
    same, wider = begun_at(fitting).take(10), begun_at(2 * fitting).take(1)
    assert (int(same.state.updates), int(wider.state.updates)) == (10, 0)
    assert same_bits(run.take(9).weights(), same.weights())


def test_loss_scale_is_bitwise_neutral():
    """With a loss scale of 2^20, weights and metric sums are bitwise those with a scale of 1."""

    def trained(scale):
        return training(
            *pictures(24), make_loss_scale=lambda: LossScale(initial=scale), clip=Clip(norm=0.5)
        ).take(9)

    plain, scaled = trained(1.0), trained(2.0**20)
    assert plain.state.loss_scale.dynamic is False and scaled.state.loss_scale.dynamic is True
    assert same_bits(plain.weights(), scaled.weights())
    assert same_bits([plain.state.sums.numpy()], [scaled.state.sums.numpy()])


def scales_of(verdicts, **options):
    """Returns the loss scale after each step.

    Args:
      verdicts: for each step, whether its gradient is finite.
      **options: arguments of `LossScale`.
    """
    scale = LossScale(**options)

    @tf.function
    def learn(good):
        scale.write(scale.after(scale.read(), good))
        return scale.value_of(scale.read())

    return [float(learn(tf.constant(good))) for good in verdicts]


def test_loss_scale_limits():
    """A loss scale never becomes infinite and never falls below its floor."""
    growing = scales_of([True] * 9, initial=2.0**60, growth_steps=2, factor=2.0**30)
    assert growing == [2.0**60, *[2.0**90] * 2, *[2.0**120] * 6]
    shrinking = scales_of([False] * 5, initial=16.0, factor=4.0, floor=2.0)
    assert shrinking == [4.0, *[2.0] * 4]
    # A scale that starts below its floor is constant.
    assert scales_of([False] * 2, initial=0.5) == [0.5, 0.5]


def test_loss_scale_growth():
    """A loss scale grows only after `growth_steps` finite steps in a row."""
    verdicts = [True, False, True, True, True, True]
    found = scales_of(verdicts, initial=8.0, growth_steps=3)
    assert found == [8.0, 4.0, 4.0, 4.0, 8.0, 8.0]


def test_unit_loss_scale_is_constant():
    assert scales_of([True, False, True], growth_steps=1, floor=0.5) == [1.0] * 3
