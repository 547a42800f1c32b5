"""LAMB: updates in proportion to the norm of the weights, and cases without a trust ratio."""

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.lamb import Lamb
from engine.optim.weight_decay import DecoupledDecay

RATE = 0.01


def moved(weight, gradient, decay, updates=1):
    """Returns a weight after updates, of which the first has `gradient` and the others zeros."""
    optimizer, variable = Lamb(0.9, 0.999, 1e-7, decay), tf.Variable(weight)
    optimizer.create_slots([variable])

    @tf.function
    def train():
        for update in tf.range(updates, dtype=tf.int64):
            given = gradient * tf.cast(update == 0, tf.float32)
            optimizer.apply([given], [variable], tf.constant(RATE, tf.float64), update)

    train()
    return variable.numpy()


def random(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 2, 4)])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_matrix_update(shape, scale):
    """A matrix or kernel changes by the learning rate times its norm."""
    weight = random(*shape) * np.float32(scale)
    for decay in (0.0, 0.1):
        step = moved(weight, random(*shape), decay) - weight
        assert np.linalg.norm(step) == pytest.approx(RATE * np.linalg.norm(weight), rel=1e-4)


def test_vector_update():
    """A vector changes by the learning rate, whatever its norm."""
    for weight in (np.zeros(4, np.float32), random(4)):
        step = moved(weight, random(4), 0.1) - weight
        assert step == pytest.approx(-RATE * np.sign(random(4)), rel=1e-4)


def test_ratio_of_zero_matrix():
    """The trust ratio of a matrix of zeros is 1."""
    step = moved(np.zeros((4, 3), np.float32), random(4, 3), 0.1)
    assert step == pytest.approx(-RATE * np.sign(random(4, 3)), rel=1e-5)


def test_decay_inside_ratio():
    assert not isinstance(build_optimizer("lamb"), DecoupledDecay)
    weight = random(4, 3)
    # Without a gradient the decay is the whole update, and the ratio scales it to the rate.
    found = moved(weight, np.zeros_like(weight), 0.1, updates=10)
    assert found == pytest.approx(weight * (1 - RATE) ** 10, rel=1e-6)


def test_faded_gradient_stays_finite():
    # The mean fades to 0 while the ratio grows beyond the range of float32.
    assert np.isfinite(moved(random(4, 3) * 1000, random(4, 3), 0.0, updates=1000)).all()
