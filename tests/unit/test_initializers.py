"""Initial values: distributions, and independence of layers and nested layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tapeline import models
from tapeline.models import Initializer


def test_truncated_normal():
    values = Initializer(3, 1, "dense").truncated_normal("kernel", (400, 500), 0.02).numpy()
    assert np.abs(values).max() <= np.float32(0.04)
    # 200,000 draws: by Kolmogorov, the largest distance of the distribution functions is above
    # 0.005 in 1 of 11,000 samples.
    sample = np.sort(values, axis=None).astype(np.float64) / 0.02
    ends = np.linspace(-2, 2, 201)
    expected = np.array([math.erf(end / math.sqrt(2)) for end in ends]) / math.erf(math.sqrt(2))
    found = np.searchsorted(sample, ends) / len(sample)
    assert np.abs(found - (1 + expected) / 2).max() < 0.005


@pytest.mark.parametrize("shape", [(300, 400), (3, 3, 40, 90)])
def test_he_normal(shape):
    values = Initializer(3, 1, "dense").he_normal("kernel", shape).numpy()
    expected = np.sqrt(2 / np.prod(shape[:-1]))
    # The sample's standard deviation is within 1%: six times its own deviation for 30,000 draws.
    np.testing.assert_allclose(values.std(), expected, rtol=0.01)
    np.testing.assert_allclose(values.mean(), 0, atol=0.02 * expected)


def test_zeros():
    variable = Initializer(3, 1, "dense").zeros("kernel", (2, 3))
    assert variable.trainable
    np.testing.assert_array_equal(variable, np.zeros([2, 3]))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("filters", "groups"), [(4, 1), (6, 1), (3, 1), (8, 2), (12, 4), (2, 2)])
def test_dirac(size, filters, groups):
    """With padding "SAME", filter k of a group returns channel k of the group; others do not."""
    layer = models.Convolution(
        *(filters, size), padding="SAME", groups=groups, kernel_initializer="dirac"
    )
    layer.build((5, 6, 4), Initializer(0, 0, "convolution"))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    y = layer(tf.constant(x), models.ForwardContext()).numpy()
    inputs, outputs = 4 // groups, filters // groups
    for k in range(filters):
        group, place = divmod(k, outputs)
        if place < inputs:
            np.testing.assert_array_equal(y[..., k], x[..., group * inputs + place])
        else:
            weights = layer.kernel.numpy()[..., k]
            assert 0 < np.abs(weights).max() <= 1 / np.sqrt(size**2 * inputs)


def test_dirac_of_other_layers():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    for layer in (
        models.DepthwiseConvolution(3, padding="SAME", multiplier=2, kernel_initializer="dirac"),
        models.Dense(3, kernel_initializer="dirac"),
    ):
        layer.build((5, 6, 3), Initializer(0, 0, "layer"))
        y = layer(tf.constant(x), models.ForwardContext()).numpy()
        np.testing.assert_array_equal(y[..., :: y.shape[-1] // 3], x)


def test_fan_in_uniform():
    values = Initializer(3, 1, "dense").fan_in_uniform("kernel", (3, 3, 40, 90)).numpy()
    limit = 1 / np.sqrt(9 * 40)
    assert 0.999 * limit < np.abs(values).max() <= np.float32(limit)
    np.testing.assert_allclose(values.std(), limit / np.sqrt(3), rtol=0.01)


def test_fans_of_groups():
    """A depthwise kernel of 3x3 has 9 inputs and 9 outputs, for any number of channels."""
    layer = models.DepthwiseConvolution()
    layer.build((9, 9, 500), Initializer(0, 0, "depthwise_convolution"))
    limit = np.sqrt(6 / 18)
    assert 0.99 * limit < np.abs(layer.kernel).max() <= limit
    grouped = models.Convolution(40, groups=4)
    grouped.build((9, 9, 20), Initializer(0, 0, "convolution"))
    limit = np.sqrt(6 / (9 * 5 + 9 * 10))
    assert 0.99 * limit < np.abs(grouped.kernel).max() <= limit


@pytest.mark.parametrize("method", ["glorot_uniform", "he_normal", "fan_in_uniform"])
def test_pure_function_of_seed_and_index(method):
    def drawn(seed, index):
        return getattr(Initializer(seed, index, "dense"), method)("kernel", (30, 40)).numpy()

    np.testing.assert_array_equal(drawn(1, 2), drawn(1, 2))
    for seed, index in ((2, 2), (1, 3)):
        assert np.mean(drawn(1, 2) == drawn(seed, index)) < 0.01


def test_nested_layers_have_names_values_and_streams_of_their_own():
    """Nested layers share no initial value, dropout stream or name with any other layer."""
    outer = Initializer(1, 3, "residual")
    inner = outer.nested("branch_0", "max pool")
    assert inner.glorot_uniform("kernel", (1, 1)).name == "3_residual/branch_0_max_pool/kernel:0"
    assert (outer.place, inner.place) == ("3", "3.branch_0")
    deeper = inner.nested("shortcut_1", "dense")
    assert deeper.zeros("bias", (1,)).name == (
        "3_residual/branch_0_max_pool/shortcut_1_dense/bias:0"
    )
    # These numbers are in the weights and dropout masks of every run: they never change.
    assert inner.index == 5_049_606_374_855_028_190 and deeper.index == 7_809_046_316_022_883_464
    others = [
        *(outer.nested(f"branch_{index}", "dense") for index in range(1, 50)),
        *(Initializer(1, index, "x").nested("branch_0", "dense") for index in (0, 1, 2, 4, 31)),
    ]
    indices = {each.index for each in (inner, deeper, *others)}
    assert len(indices) == len(others) + 2
    assert all(2**62 <= index < 2**63 for index in indices)
