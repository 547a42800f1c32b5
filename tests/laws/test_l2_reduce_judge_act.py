"""L2: gradients are reduced before anything looks at them; one verdict then holds everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import models
from engine.numerics.clipping import Clip
from engine.numerics.precision import LossScale
from engine.task import Classification
from engine.verify.poison import Poisoned
from pipelines import Layout
from tests import papers
from tests.harness import CLASSES, pictures, put_together, same_bits, training
from tests.vectors import Linear, Vectors, Weights


def named(layout: Layout) -> str:
    return f"{layout.replicas}x{layout.micro_batches}" + f"/{layout.shards}" * (layout.shards > 0)


# Clipping

# What one half of the replicas has to say, and the other half; the first two sums are short.
OPPOSED = (
    ([10.0, 0.0], [-10.0, 0.5]),
    ([10.0, 0.0], [-10.75, 0.5]),
    ([13.0, 0.0], [-10.0, 4.0]),
    ([-130.0, 40.0], [100.0, -80.0]),
)
CLIPS = (Clip(norm=1.0), Clip(value=1.0), Clip(norm=1.0, value=2.0))
CUT = (
    Layout(2),
    Layout(4),
    Layout(1, 2),
    Layout(2, 2),
    Layout(4, 2),
    Layout(1, 1, 4),
    Layout(2, 1, 4),
    Layout(2, 2, 4),
    Layout(4, 2, 4),
)


def opposed(layout: Layout, ours, theirs) -> list[list]:
    """Steps in which one half of the gradient is `ours` and one is `theirs`: by replicas or shards,
    and by micro-batches; as the rows of a batch, of whose gradients the engine takes the mean."""
    rows = np.arange(layout.replicas * layout.pieces)
    shard, micro_batch = rows % layout.all_shards, rows // layout.all_shards
    halves = [(shard, layout.all_shards), (micro_batch, layout.micro_batches)]
    return [
        [np.multiply(2.0, ours if at < count / 2 else theirs) for at in places]
        for places, count in halves
        if count > 1
    ]


@pytest.mark.parametrize("clip", CLIPS, ids=["norm", "value", "both"])
@pytest.mark.parametrize("layout", CUT, ids=named)
def test_what_is_clipped_is_the_gradient_of_all_and_never_that_of_a_part(layout, clip):
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
            # The factor and the product are rounded, and then the weight, which is below 8.
            assert before - after == pytest.approx(wanted, rel=2**-22, abs=2**-22)
        # What is reported is the length before the clip.
        found = run.state.sums.numpy()[-2] - norms
        assert found == pytest.approx(np.linalg.norm(gradient), rel=2**-22)


# The verdict

BATCH = 24  # rows, cut evenly by all of these
JUDGED = (Layout(1, 3), Layout(2, 3), Layout(4), Layout(2, 2, 4))
BAD = (np.inf, -np.inf, np.nan)
SCALE = {"initial": 2.0, "growth_steps": 2, "factor": 4.0, "floor": 1.0}


def poisons(layout: Layout):
    """(row, factor, part): each replica in turn, in each micro-batch; and all parts of a step."""
    random = np.random.default_rng(0)
    rows = BATCH // layout.micro_batches // layout.replicas
    places = [
        (micro_batch * layout.replicas + replica) * rows + int(random.integers(rows))
        for replica in range(layout.replicas)
        for micro_batch in range(layout.micro_batches)
    ]
    yield from ((row, factor, "gradient") for row in places for factor in BAD)
    yield from ((int(random.choice(places)), np.inf, part) for part in Poisoned.PARTS[1:])


def learned(scale: float, run: int, good: bool) -> tuple[float, int]:
    """The loss scale, and how many steps in a row were good, after one more step."""
    if not good:
        return max(scale / SCALE["factor"], SCALE["floor"]), 0
    return (scale * SCALE["factor"], 0) if run + 1 == SCALE["growth_steps"] else (scale, run + 1)


def kernels(found: dict[str, bytes]) -> list[bytes]:
    """The bits of a weight and of its average, on every replica."""
    return [bits for name, bits in found.items() if "/0_convolution/kernel:0/" in name]


@pytest.mark.parametrize("layout", JUDGED, ids=named)
def test_what_is_not_finite_on_one_replica_moves_nothing_on_any_and_the_next_step_goes_on(layout):
    task, random, scales = Poisoned(Classification()), np.random.default_rng(1), set()
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
        return float(state.loss_scale.value), int(state.loss_scale.good_steps)

    for row, factor, part in poisons(layout):
        where = f"{part} of row {row} times {factor}"
        before, step, updates = run.everywhere(), int(state.step), int(state.updates)
        task.poison(row, factor, part)
        run.take(1)
        task.heal()
        after, expected = run.everywhere(), learned(*expected, good=False)
        moved = {name.split("/", 1)[1] for name in before if before[name] != after[name]}
        assert moved <= {"step:0/0", "value:0/0", "good_steps:0/0"}, where
        assert (int(state.step), int(state.updates)) == (step + 1, updates), where
        assert loss_scale() == expected, where
        for turn in range(random.integers(1, 6)):
            run.take(1)
            before, after, expected = after, run.everywhere(), learned(*expected, good=True)
            assert (int(state.updates), loss_scale()) == (updates + turn + 1, expected), where
            pairs = zip(kernels(before), kernels(after), strict=True)
            assert all(old != new for old, new in pairs), where
            scales.add(expected[0])
    assert min(scales) == SCALE["floor"] and max(scales) > SCALE["initial"]  # it went both ways
    assert len(kernels(after)) == 2 * layout.replicas
    for name, bits in after.items():
        assert bits == after[name.rsplit("/", 1)[0] + "/0"], name


@pytest.mark.parametrize(
    ("optimizer", "layout"),
    [("adam", Layout(2)), ("adam", Layout(2, 2, 4)), ("lamb", Layout()), ("muon", Layout())],
    ids=str,
)
def test_bad_steps_leave_no_trace_in_what_the_good_ones_learn(optimizer, layout):
    random = np.random.default_rng(2)
    good = random.normal(size=(4, layout.replicas * layout.pieces, 9)).astype(np.float32)
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
    """No dropout: a step is the same one at whatever number."""
    return [models.Flatten(), models.Dense(16, activation="relu"), models.Dense(CLASSES)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_infinity_of_the_scaled_gradient_alone_is_skipped_until_the_scale_fits(replicas):
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
    # From there on it is the run that began with the scale that fits, which saw nothing infinite.
    same, wider = begun_at(fitting).take(10), begun_at(2 * fitting).take(1)
    assert (int(same.state.updates), int(wider.state.updates)) == (10, 0)
    assert same_bits(run.take(9).weights(), same.weights())


def test_a_loss_scale_changes_no_bit_where_nothing_leaves_the_range():
    def trained(scale):
        return training(
            *pictures(24), make_loss_scale=lambda: LossScale(initial=scale), clip=Clip(norm=0.5)
        ).take(9)

    plain, scaled = trained(1.0), trained(2.0**20)
    assert plain.state.loss_scale.dynamic is False and scaled.state.loss_scale.dynamic is True
    assert same_bits(plain.weights(), scaled.weights())
    assert same_bits([plain.state.sums.numpy()], [scaled.state.sums.numpy()])


def scales_of(verdicts, **options):
    """The scale after each verdict."""
    scale = LossScale(**options)

    @tf.function
    def learn(good):
        scale.write(scale.after(scale.read(), good))
        return scale.value_of(scale.read())

    return [float(learn(tf.constant(good))) for good in verdicts]


def test_a_scale_never_becomes_infinite_nor_falls_below_its_floor():
    growing = scales_of([True] * 9, initial=2.0**60, growth_steps=2, factor=2.0**30)
    assert growing == [2.0**60, *[2.0**90] * 2, *[2.0**120] * 6]
    shrinking = scales_of([False] * 5, initial=16.0, factor=4.0, floor=2.0)
    assert shrinking == [4.0, *[2.0] * 4]
    # A scale that begins below its floor stays where it is.
    assert scales_of([False] * 2, initial=0.5) == [0.5, 0.5]


def test_a_scale_grows_only_after_enough_good_steps_in_a_row():
    verdicts = [True, False, True, True, True, True]
    found = scales_of(verdicts, initial=8.0, growth_steps=3)
    assert found == [8.0, 4.0, 4.0, 4.0, 8.0, 8.0]


def test_a_scale_of_1_is_constant():
    assert scales_of([True, False, True], growth_steps=1, floor=0.5) == [1.0] * 3
