"""Compares optimizers, schedules and clipping with the papers' formulas in float64 and with Keras.

The references share no code with the engine. Each feature is first tested separately, then all of
them in the engine's training loop.
"""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest

from engine.optim import schedules
from engine.optim.clipping import Clip
from engine.optim.registry import OPTIMIZERS, SCHEDULES
from pipelines import BatchLayout
from tests import papers
from tests.choices import choices
from tests.harness import put_together, rates_of
from tests.updates import (
    CLOSE,
    DECAY,
    OPTIONS,
    SHAPES,
    STEPS,
    STILL,
    each_optimizer,
    error,
    start,
    trained,
)
from tests.vectors import Linear, Vectors, Weights

PEAK = 0.05

# Update rules alone


def references(name, weights):
    """Returns a `papers.Reference` for each weight."""
    options = {**OPTIONS, "weight_decay": DECAY[name]}
    return [papers.Reference(name, weight, options) for weight in weights]


@functools.cache
def referred(name):
    """Returns the float64 weights after `STEPS` updates by the paper's formula."""
    weights, gradients, rates = start()
    moved = references(name, weights)
    for turn in range(STEPS):
        for reference, gradient in zip(moved, gradients[turn], strict=True):
            reference.update(gradient, rates[turn], turn + 1)
    return [reference.weight for reference in moved]


@each_optimizer
def test_updates_match_paper(name):
    weights, _, _ = start()
    for weight, found, wanted in zip(weights, trained(name), referred(name), strict=True):
        assert found.dtype == np.float32
        assert error(found, wanted) < CLOSE
        # The weights have changed, so equality is not trivial.
        assert error(wanted, weight) > 0.02 or weight.shape in STILL


@each_optimizer
def test_xla_updates_match_paper(name):
    for found, wanted in zip(trained(name, jit_compile=True), referred(name), strict=True):
        assert error(found, wanted) < CLOSE


@pytest.fixture
def keras_in_float64():
    """Sets Keras's default dtype to float64 during a test.

    Keras computes Adam's bias correction in the dtype of the weights; in float32 the error is 2e-6
    of the weights. The remaining error, from betas rounded to float32, is 8.4e-7.
    """
    usual = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(usual)


def keras_optimizer(name):
    momentum, b = OPTIONS["momentum"], (OPTIONS["beta_1"], 0.99 if name == "lion" else 0.999)
    eps, decay = OPTIONS["epsilon"], DECAY[name]
    return {
        "sgd": lambda: keras.optimizers.SGD(),
        "momentum": lambda: keras.optimizers.SGD(momentum=momentum),
        "nesterov": lambda: keras.optimizers.SGD(momentum=momentum, nesterov=True),
        "rmsprop": lambda: keras.optimizers.RMSprop(rho=OPTIONS["rho"], epsilon=eps),
        "adam": lambda: keras.optimizers.Adam(beta_1=b[0], beta_2=b[1], epsilon=eps),
        "adamw": lambda: keras.optimizers.AdamW(
            weight_decay=decay, beta_1=b[0], beta_2=b[1], epsilon=eps
        ),
        "lamb": lambda: keras.optimizers.Lamb(beta_1=b[0], beta_2=b[1], epsilon=eps),
        "lion": lambda: keras.optimizers.Lion(beta_1=b[0], beta_2=b[1], weight_decay=decay),
        "muon": lambda: keras.optimizers.Muon(
            momentum=momentum,
            adam_beta_1=b[0],
            adam_beta_2=b[1],
            epsilon=eps,
            weight_decay=decay,
        ),
    }[name]()


# Keras differs on purpose in three places, which the test avoids. Its Lamb applies weight decay
# beside the update, not inside it, and the trust ratio to vectors too: compared without decay, on
# matrices. Its Muon uses Adam for kernels of rank 4: they are reshaped to matrices.
@each_optimizer
def test_updates_match_keras(name, keras_in_float64):
    weights, gradients, rates = start()
    shapes = [(-1, s[-1]) if name == "muon" and len(s) > 1 else s for s in SHAPES]
    variables = [
        keras.Variable(weight.reshape(shape), dtype="float64")
        for weight, shape in zip(weights, shapes, strict=True)
    ]
    optimizer = keras_optimizer(name)
    if DECAY[name]:
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    for turn in range(STEPS):
        optimizer.learning_rate = rates[turn]
        shaped = [g.reshape(s).astype(float) for g, s in zip(gradients[turn], shapes, strict=True)]
        optimizer.apply_gradients(zip(shaped, variables, strict=True))
    ours = trained(name, decay=0.0 if name == "lamb" else None)
    for found, variable in zip(ours, variables, strict=True):
        if name != "lamb" or found.ndim > 1:
            assert error(found, variable.numpy().reshape(found.shape)) < CLOSE


# Schedules alone


def rates(name, total, **options):
    built = schedules.build_schedule(name, learning_rate=PEAK, total_steps=total, **options)
    return rates_of(built, range(total))


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("total", [8, 101])
@pytest.mark.parametrize(
    ("name", "decay_rate", "decay_steps", "final_fraction"),
    [
        ("constant", 0.1, 0, 0.0),
        ("cosine", 0.1, 0, 0.0),
        ("cosine", 0.1, 0, 0.25),
        ("linear", 0.1, 0, 0.0),
        ("linear", 0.1, 0, 0.25),
        ("piecewise_linear", 0.1, 0, 0.0),
        ("piecewise_constant", 0.1, 0, 0.0),
        ("step", 0.1, 0, 0.0),
        ("step", 0.5, 4, 0.0),
        ("exponential", 0.1, 0, 0.0),
        ("exponential", 0.97, 1, 0.0),
        ("one_cycle", 0.1, 0, 0.0),
    ],
)
def test_schedule_matches_formula(name, decay_rate, decay_steps, final_fraction, total, warmup):
    rules = {
        "decay_rate": decay_rate,
        "decay_steps": decay_steps,
        "final_fraction": final_fraction,
    }
    found = rates(name, total, warmup_steps=warmup, **rules)
    wanted = [papers.rate(name, s, total, PEAK, warmup=warmup, **rules) for s in range(total)]
    # A few float64 roundings; relative to the peak where a cosine ends near zero.
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-15 * PEAK)


@pytest.mark.parametrize("name", SCHEDULES)
def test_short_schedule_matches_formula(name):
    """Schedules of runs of one to three steps match the formula."""
    for total in (1, 2, 3):
        wanted = [papers.rate(name, step, total, PEAK) for step in range(total)]
        np.testing.assert_allclose(rates(name, total), wanted, rtol=1e-12)


KERAS_SCHEDULES = {
    "cosine": lambda: keras.optimizers.schedules.CosineDecay(PEAK, 51, alpha=0.25),
    "linear": lambda: keras.optimizers.schedules.PolynomialDecay(PEAK, 51, 0.25 * PEAK),
    "step": lambda: keras.optimizers.schedules.ExponentialDecay(PEAK, 17, 0.5, staircase=True),
    "exponential": lambda: keras.optimizers.schedules.ExponentialDecay(PEAK, 17, 0.5),
}


@pytest.mark.parametrize("name", KERAS_SCHEDULES)
def test_schedule_matches_keras(name):
    wanted = [float(KERAS_SCHEDULES[name]()(step)) for step in range(51)]
    found = rates(name, 51, decay_rate=0.5, decay_steps=17, final_fraction=0.25)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


# All of them in the engine's loop

TOTAL = 51
NORM = 20.0  # about the median gradient norm
EMA = 0.8  # reached after 36 updates
SETTINGS = [
    (optimizer, name, warmup)
    for optimizer, (name, warmup) in zip(
        itertools.cycle(OPTIMIZERS), itertools.product(SCHEDULES, (0, 7)), strict=False
    )
    if not (name.startswith("piecewise") and warmup)
]


def named(choice) -> str:
    """Returns the test ID of a setting, or of a layout: the number of replicas."""
    if isinstance(choice, BatchLayout):
        return str(choice.replicas)
    return "-".join(map(str, choice))


def made_up():
    """Returns random weights and random gradients, both float32.

    Weights have the shapes `SHAPES`; gradients are vectors [TOTAL, 2, length], for two examples of
    each step.
    """
    random = np.random.default_rng(11)
    weights = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    length = sum(weight.size for weight in weights)
    sizes = 10.0 ** random.uniform(-1, 1, (TOTAL, 1, 1))
    return weights, (random.normal(size=(TOTAL, 2, length)) * sizes).astype(np.float32)


def cut(vector):
    """Returns the parts of a vector as tensors with the shapes `SHAPES`."""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    return [part.reshape(s) for part, s in zip(np.split(vector, ends[:-1]), SHAPES, strict=True)]


@functools.cache
def expected(optimizer, name, warmup):
    """Returns the final weights and their EMA, float64, computed by the papers' formulas.

    Asserts that a third to two thirds of the steps are clipped.
    """
    weights, vectors = made_up()
    moved = references(optimizer, weights)
    averages = [reference.weight for reference in moved]
    clipped = 0
    for step, examples in enumerate(vectors.astype(np.float64)):
        gradient = examples.mean(axis=0)
        rate = papers.rate(name, step, TOTAL, PEAK, warmup=warmup)
        clipped += bool(np.linalg.norm(gradient) > NORM)
        for reference, part in zip(moved, papers.clipped(cut(gradient), NORM), strict=True):
            reference.update(part, rate, step + 1)
            # No argument of Lion's sign is so close to 0 that rounding could flip it.
            assert optimizer != "lion" or reference.margin > 2e-6
        averages = [
            papers.averaged(average, reference.weight, EMA, step + 1)
            for average, reference in zip(averages, moved, strict=True)
        ]
    assert TOTAL / 3 < clipped < 2 * TOTAL / 3
    return [reference.weight for reference in moved], averages


@pytest.mark.parametrize(
    ("setting", "layout"), choices(SETTINGS, [BatchLayout(1, 2), BatchLayout(2)], name=named)
)
def test_loop_matches_papers(setting, layout):
    """The training loop ends with the weights and EMA that the papers' formulas give."""
    optimizer, name, warmup = setting
    weights, vectors = made_up()
    run = put_together(
        lambda: Weights(*weights),
        lambda strategy: Vectors(vectors, layout),
        Linear(),
        layout=layout,
        optimizer=optimizer,
        rule={**OPTIONS, "weight_decay": DECAY[optimizer]},
        rate=schedules.build_schedule(
            name, learning_rate=PEAK, total_steps=TOTAL, warmup_steps=warmup
        ),
        clip=Clip(norm=NORM),
        ema=EMA,
    ).take(TOTAL)
    averages = [variable.numpy() for variable in run.state.ema.variables]
    for kept, papers_have in zip(
        (run.weights(), averages), expected(optimizer, name, warmup), strict=True
    ):
        for found, wanted in zip(kept, papers_have, strict=True):
            assert error(found, wanted) < CLOSE
