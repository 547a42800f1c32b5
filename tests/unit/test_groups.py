"""Learning rates and weight decay of groups of variables."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.options import OptimizerOptions
from engine.optim.registry import OPTIMIZERS

SHAPES = {
    "body/0/kernel": [3, 4],
    "body/0/bias": [4],
    "body/1/scale": [4],
    "head/kernel": [4, 2],
    "head/bias": [2],
}


def variables():
    random = np.random.default_rng(0)
    return {
        name: tf.Variable(random.normal(size=shape).astype(np.float32), name=name.replace("/", "_"))
        for name, shape in SHAPES.items()
    }


def trained(name, rate=0.01, updates=3, **options):
    """Returns the values of the variables after some updates by the same gradients, by name."""
    known = variables()
    optimizer = build_optimizer(name, learning_rate=rate, variables=known, **options)
    optimizer.create_slots(list(known.values()))
    random = np.random.default_rng(1)
    for update in range(updates):
        gradients = [tf.constant(random.normal(size=s), tf.float32) for s in SHAPES.values()]
        optimizer.apply(
            gradients,
            list(known.values()),
            tf.constant(rate, tf.float64),
            tf.constant(update, tf.int64),
        )
    return {each: variable.numpy() for each, variable in known.items()}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.built_in))
def test_multiplied_rate(name):
    """A group is updated as by an optimizer of that rate, to the bit; the others as before."""
    found = trained(name, learning_rate_multipliers="head/.*:2,.*bias:0", weight_decay=0.1)
    plain, twice = trained(name, weight_decay=0.1), trained(name, 0.02, weight_decay=0.1)
    start = variables()
    for each, value in found.items():
        expected = plain[each]
        if each.startswith("head/"):
            expected = twice[each]
        elif each.endswith("bias"):
            expected = start[each].numpy()
        np.testing.assert_array_equal(value, expected, each)


def test_first_pattern_counts():
    found = trained("sgd", learning_rate_multipliers="vectors:1,.*:3")
    plain, thrice = trained("sgd"), trained("sgd", 0.03)
    for each, value in found.items():
        matrix = each.endswith("kernel")
        np.testing.assert_array_equal(value, (thrice if matrix else plain)[each])


def test_multipliers_of_one():
    """They change no bit."""
    found = trained("adamw", learning_rate_multipliers="head/.*:1")
    assert all(np.array_equal(value, trained("adamw")[each]) for each, value in found.items())


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "muon", "sgd"])
@pytest.mark.parametrize(
    ("patterns", "decays"),
    [
        ("matrices", lambda each: each.endswith("kernel")),
        ("vectors", lambda each: not each.endswith("kernel")),
        (".*", lambda each: True),
        ("head/kernel,.*/scale", lambda each: each in ("head/kernel", "body/1/scale")),
        ("body/.*:0,.*:1e-2", lambda each: each.startswith("head/")),
        ("body/(?:0|1)/.*", lambda each: each.startswith("body/")),
    ],
)
def test_decaying_variables(name, patterns, decays):
    """Weight decay changes what the patterns select, and nothing else."""
    options = {"updates": 1, "weight_decay": 0.5}
    found = trained(name, weight_decay_variables=patterns, **options)
    without = trained(name, updates=1, weight_decay=0.0)
    for each, value in found.items():
        assert np.array_equal(value, without[each]) != decays(each), each


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sgd"])
def test_decay_factors(name):
    """A factor multiplies the decay of a variable, to the bit."""
    found = trained(name, weight_decay=0.5, weight_decay_variables="head/.*:0.25,.*bias:0,.*:2")
    by_factor = {
        factor: trained(name, weight_decay=0.5 * factor, weight_decay_variables=".*")
        for factor in (0.25, 1e-9, 2)
    }
    for each, value in found.items():
        factor = 0.25 if each.startswith("head/") else 1e-9 if each.endswith("bias") else 2
        np.testing.assert_array_equal(value, by_factor[factor][each], each)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate_multipliers": "hed/.*:2"}, "'hed/.*' matches no trainable variable; they"),
        ({"weight_decay_variables": "norm", "weight_decay": 0.1}, "'norm' matches no trainable"),
        ({"weight_decay_variables": ".*"}, "has no weight decay"),
        (
            {"learning_rate_multipliers": "head/.*:600", "weight_decay": 0.2},
            "takes their product, times 600, of each weight",
        ),
        (
            {"weight_decay_variables": "head/.*:6,.*", "rate": 0.2, "weight_decay": 0.9},
            "takes their product, times 6, of each weight",
        ),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trained("momentum", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate_multipliers": "head"},
        {"learning_rate_multipliers": "head:-1"},
        {"learning_rate_multipliers": "head:nan"},
        {"learning_rate_multipliers": ":2"},
        {"learning_rate_multipliers": "a:1,a:2"},
        {"learning_rate_multipliers": "a(:1"},
        {"weight_decay_variables": ""},
        {"weight_decay_variables": "a:-1"},
        {"weight_decay_variables": "a,a:2"},
        {"weight_decay_variables": ":2"},
        {"weight_decay_variables": "a("},
    ],
)
def test_refused_options(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError) as error:
        OptimizerOptions(**options)
    assert str(error.value).startswith(f"--{name}={value}") and "\n" not in str(error.value)
