"""Moving averages, bias corrections and norms that optimizers share, compared with float64."""

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.base import average, bias_correction, norm


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("update", [0, 1, 9, 10**7])
def test_bias_correction(beta, update):
    found = bias_correction(beta, tf.constant(update, tf.int64))
    assert found.dtype == tf.float64
    # One minus a power: its rounding is absolute.
    assert float(found) == pytest.approx(1 - beta ** (update + 1), rel=0, abs=1e-15)


@pytest.mark.parametrize("scale", [0.0, 1e-37, 1.0, 1e37])
def test_norm_range(scale):
    """A norm of float32 numbers neither overflows nor underflows."""
    tensor = np.float32(np.random.default_rng(0).normal(size=(3, 4, 2)) * scale)
    wanted = np.linalg.norm(tensor.astype(np.float64))
    assert float(norm(tf.constant(tensor))) == pytest.approx(wanted, rel=1e-14)


def test_slow_mean_is_unbiased():
    values = np.float32(np.random.default_rng(0).normal(size=(20_000, 32)) ** 2)
    mean, wanted = tf.Variable(tf.zeros(32)), np.zeros(32)

    @tf.function
    def run():
        for value in tf.constant(values):
            average(mean, value, 0.999)

    run()
    for value in values:
        wanted = 0.999 * wanted + (1 - 0.999) * value
    # Half a unit in the last place per step, at random over about 1,000 steps: about 5e-7 each.
    assert abs(np.mean(mean.numpy() / wanted - 1)) < 1e-6


def test_average_returns_new_mean():
    mean = tf.Variable([1.0, -2.0])
    returned = average(mean, tf.constant([3.0, 0.0]), 0.75)
    assert returned.numpy().tolist() == mean.numpy().tolist() == [1.5, -1.5]
