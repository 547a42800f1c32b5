"""LAMB: a step in proportion to the weights, where there is a proportion."""

import numpy as np
import pytest
import tensorflow as tf

from engine import optimizers
from engine.optimizers.decay import DecoupledDecay
from engine.optimizers.lamb import Lamb

RATE = 0.01


def moved(weight, gradient, decay, updates=1):
    """The weight after updates of which the first alone has the gradient."""
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
def test_a_matrix_or_kernel_moves_by_the_rates_fraction_of_its_norm(shape, scale):
    weight = random(*shape) * np.float32(scale)
    for decay in (0.0, 0.1):
        step = moved(weight, random(*shape), decay) - weight
        assert np.linalg.norm(step) == pytest.approx(RATE * np.linalg.norm(weight), rel=1e-4)


def test_a_vector_moves_by_the_rate_whatever_its_norm():
    for weight in (np.zeros(4, np.float32), random(4)):
        step = moved(weight, random(4), 0.1) - weight
        assert step == pytest.approx(-RATE * np.sign(random(4)), rel=1e-4)


def test_the_ratio_is_1_for_a_matrix_of_zeros():
    step = moved(np.zeros((4, 3), np.float32), random(4, 3), 0.1)
    assert step == pytest.approx(-RATE * np.sign(random(4, 3)), rel=1e-5)


def test_decay_is_inside_the_ratio_and_nowhere_else():
    assert not isinstance(optimizers.build("lamb"), DecoupledDecay)
    weight = random(4, 3)
    # Without gradient the decay is the whole update, and the ratio brings it to the rate.
    found = moved(weight, np.zeros_like(weight), 0.1, updates=10)
    assert found == pytest.approx(weight * (1 - RATE) ** 10, rel=1e-6)


def test_a_matrix_whose_gradient_ended_long_ago_stays_finite():
    # Its mean fades to nothing while the ratio grows beyond float32.
    assert np.isfinite(moved(random(4, 3) * 1000, random(4, 3), 0.0, updates=1000)).all()
