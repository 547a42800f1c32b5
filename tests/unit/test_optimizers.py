"""Optimizers: no state outside their variables, and no unintended updates."""

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.registry import OPTIMIZERS
from tests.harness import same_bits
from tests.updates import (
    CLOSE,
    DECAY,
    DECAYING,
    OPTIONS,
    SHAPES,
    STILL,
    Engine,
    each_optimizer,
    error,
    start,
    trained,
)


@each_optimizer
@pytest.mark.parametrize("replicas", [1, 2])
def test_conditional_update_on_replicas(name, replicas):
    """After a conditional update, variables are bitwise equal on all replicas."""
    alone = Engine(name, start()[0]).train(end=5, move=True).state()
    engine = Engine(name, start()[0], replicas=replicas)
    engine.train(end=5, move=True)
    engine.train(end=5, move=False)
    for replica in range(replicas):
        assert same_bits(alone, engine.state(replica))
    # Without the condition it is another graph.
    for found, wanted in zip(Engine(name, start()[0]).train(end=5).state(), alone, strict=True):
        assert np.linalg.norm(found - wanted) <= CLOSE * np.linalg.norm(wanted)


@each_optimizer
def test_no_gradient_keeps_bits(name):
    """A weight with gradients of 0 and without decay is bitwise unchanged."""
    pairs = zip(start()[0], trained(name, decay=0.0), strict=True)
    assert same_bits(*zip(*(pair for pair in pairs if pair[0].shape in STILL), strict=True))


@pytest.mark.parametrize("name", [name for name in DECAYING if name != "lamb"])
def test_decoupled_decay(name):
    """Decoupled decay shrinks matrices and kernels, but no bias."""
    engine = Engine(name, start()[0])
    for turn in range(10):
        engine.apply([np.zeros_like(weight) for weight in engine.weights], 0.1, turn)
    for weight, found in zip(start()[0], engine.weights, strict=True):
        factor = (1 - 0.1 * DECAY[name]) ** 10 if weight.ndim > 1 else 1.0
        assert error(found, weight * factor) < (CLOSE if weight.ndim > 1 else 1e-30)


@each_optimizer
def test_default_weight_decay(name):
    def moved(weight_decay):
        optimizer = build_optimizer(name, weight_decay=weight_decay)
        variables = [tf.Variable(weight) for weight in start()[0]]
        optimizer.create_slots(variables)
        gradients = [tf.constant(gradient) for gradient in start()[1][0]]
        optimizer.apply(
            gradients, variables, tf.constant(0.1, tf.float64), tf.constant(0, tf.int64)
        )
        return [variable.numpy() for variable in variables]

    assert same_bits(moved(-1.0), moved(0.01 if name in DECAYING else 0.0))


def test_adamw_without_decay():
    assert same_bits(trained("adam"), trained("adamw", decay=0.0))


@pytest.mark.parametrize(("name", "own"), [("adam", 0.999), ("lion", 0.99)])
def test_default_beta_2(name, own):
    def slots(beta_2):
        optimizer = build_optimizer(name, beta_2=beta_2, weight_decay=0.0)
        variable = tf.Variable([1.0, 2.0])
        optimizer.create_slots([variable])
        rate, update = tf.constant(0.01, tf.float64), tf.constant(0, tf.int64)
        optimizer.apply([tf.constant([0.3, -0.7])], [variable], rate, update)
        return [slot.numpy() for slot in optimizer.variables]

    assert same_bits(slots(0.0), slots(own))
    assert not same_bits(slots(0.0), slots(0.9))


@each_optimizer
def test_resume_keeps_bits(name):
    begun = Engine(name, start()[0]).train(end=20)
    fresh = Engine(name, begun.weights)
    for old, new in zip(begun.optimizer.variables, fresh.optimizer.variables, strict=True):
        new.assign(old)
    assert same_bits(fresh.train(begin=20).weights, trained(name))


@each_optimizer
def test_slots(name):
    """Slots are zero-initialized, not trainable, and have the shapes of variables."""
    optimizer = Engine(name, start()[0]).optimizer
    assert not optimizer.trainable_variables
    for slot in optimizer.variables:
        assert not slot.numpy().any()
        assert slot.shape in SHAPES


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("adam", "beta_1", 0.99999999),  # 1 in float32: the divisor of the correction is 0
        ("adam", "beta_2", 0.99999999),  # 1 in float32: the corrected rate is 0
        ("adam", "epsilon", 1e-50),  # 0 in float32: 0 / 0 for a weight without a gradient
        ("rmsprop", "rho", 0.99999999),
        ("rmsprop", "epsilon", 1e-50),
        ("lamb", "epsilon", 1e-50),
        ("muon", "epsilon", 1e-50),
    ],
)
def test_option_at_float32_bound(name, option, value):
    """An option that float32 rounds to its bound is refused, or updates are finite."""
    try:
        optimizer = build_optimizer(name, **{**OPTIONS, option: value})
    except ValueError as error:
        assert f"--{option}={value}" in str(error)
        return
    variable = tf.Variable([0.0, 0.0])
    optimizer.create_slots([variable])
    rate, update = tf.constant(0.01, tf.float64), tf.constant(0, tf.int64)
    optimizer.apply([tf.constant([0.0, 1.0])], [variable], rate, update)
    still, moved = variable.numpy()
    assert still == 0.0 and -0.2 < moved < 0.0


def test_refuses_unknown_optimizer():
    with pytest.raises(ValueError, match=r"'lyon'.*adamw"):
        build_optimizer("lyon")


def test_lists_every_optimizer():
    with pytest.raises(ValueError) as refused:
        build_optimizer("")
    assert str(refused.value).endswith(f"known: {', '.join(OPTIMIZERS)}")


@pytest.mark.parametrize(
    ("name", "rate", "decay", "flags"),
    [
        ("sgd", 0.5, 2.0, "--learning_rate=0.5 --weight_decay=2.0:"),
        ("adamw", 100.0, -1.0, "--learning_rate=100.0 --weight_decay=0.01:"),
    ],
)
def test_refuses_decay_of_whole_weight(name, rate, decay, flags):
    with pytest.raises(ValueError, match=f"^{flags} .*give a smaller"):
        build_optimizer(name, learning_rate=rate, weight_decay=decay)


@pytest.mark.parametrize(
    ("name", "rate", "decay"), [("lamb", 1.0, 2.0), ("lion", 1.0, -1.0), ("sgd", 1e30, -1.0)]
)
def test_allows_smaller_decay(name, rate, decay):
    """Decay is allowed if rate * decay is below 1, and for lamb, which scales it, always."""
    build_optimizer(name, learning_rate=rate, weight_decay=decay)
