"""Residual and concatenated layers: values, names, errors, summaries, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.models.properties import named_variables
from engine.models.sequential import pooled
from tapeline import models
from tapeline.models import (
    Activation,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    LayerSummary,
    MaxPool,
    Residual,
    SelectToken,
    Sequential,
    TransformerBlock,
)
from tests.layers import made, normal, outputs_and_gradients, training

EVALUATION = models.ForwardContext()


def block(filters):
    return Residual(
        Convolution(filters, padding="SAME"),
        BatchNorm(),
        Activation("relu"),
        Dropout(0.5),
        Convolution(filters, padding="SAME"),
        BatchNorm(),
        shortcut=Convolution(filters, size=1),
    )


def network():
    return [block(4), Activation("relu"), block(6), GlobalAveragePool(), Dense(3)]


def test_residual_is_a_sum():
    layer, x = made(Residual(Dense(4, "tanh"), Dense(4), shortcut=Dense(4)), (4,)), normal(5, 4)
    first, second = layer.branch
    (shortcut,) = layer.shortcut
    expected = shortcut(x, EVALUATION) + second(first(x, EVALUATION), EVALUATION)
    np.testing.assert_array_equal(layer(x, EVALUATION), expected)
    identity = made(Residual(Dense(4, kernel_initializer="zeros")), (4,))
    np.testing.assert_array_equal(identity(x, EVALUATION), x + identity.branch[0].bias)


def test_concatenate():
    layer, x = made(Concatenate([], [Dense(4), Dense(2)], Dense(3)), (5, 6)), normal(4, 5, 6)
    assert layer.output_shape == (5, 11)
    (), (first, second), (third,) = layer.branches
    parts = [x, second(first(x, EVALUATION), EVALUATION), third(x, EVALUATION)]
    np.testing.assert_array_equal(layer(x, EVALUATION), tf.concat(parts, -1))


def test_names_and_checkpoint_paths():
    model = models.Sequential("network", network(), (6, 6, 1), seed=0)
    names = [variable.name for variable in model.variables]
    assert len(set(names)) == len(names)
    assert "2_residual/branch_4_convolution/kernel:0" in names
    assert "2_residual/shortcut_0_convolution/kernel:0" in names
    paths = named_variables(model)
    assert {"layers/0/branch/1/moving_mean", "layers/2/shortcut/0/kernel"} <= set(paths)
    assert len(paths) == len(names)


def test_values_and_dropout_of_their_own():
    """Two equal nested layers have different weights and dropout masks."""
    layer = made(Residual(Dense(30), Dropout(0.5), Dense(30), Dropout(0.5), shortcut=()), (30,))
    one, first, two, second = layer.branch
    assert np.mean(one.kernel.numpy() == two.kernel.numpy()) < 0.01
    x = tf.ones([40, 30])
    # 1,200 pairs of coins agree half the time, with a standard deviation of 0.014.
    agree = np.mean(first(x, training()).numpy() == second(x, training()).numpy())
    assert abs(agree - 0.5) < 0.07
    attention = made(models.Attention(2), (4, 30))
    assert np.mean(attention.query.kernel.numpy() == attention.key.kernel.numpy()) < 0.01


def test_bias_before_nested_norm():
    """A bias that a batch norm would cancel is omitted, inside a branch and at its end."""
    model = models.Sequential("network", [block(4), Flatten(), Dense(3)], (6, 6, 1), seed=0)
    assert not hasattr(model.layers[0].branch[0], "bias")
    assert hasattr(model.layers[0].shortcut[0], "bias")
    layers = [Residual(Dense(4, "relu"), Dense(4)), BatchNorm(), Dense(2)]
    model = models.Sequential("network", layers, (4,), seed=0)
    first, last = model.layers[0].branch
    assert hasattr(first, "bias") and not hasattr(last, "bias")


def test_pool_is_not_moved_before_other_activations():
    """A max pool moves before an activation only if that is non-decreasing to the last bit."""
    layers = [Convolution(4, activation="gelu"), MaxPool(), Convolution(4, activation="relu6")]
    layers += [MaxPool(), MaxPool()]
    assert [(index, pool) for index, _, pool in pooled(layers)] == [
        *[(0, None), (1, None), (2, layers[3]), (4, None)]
    ]
    model = models.Sequential("network", [*layers[:2], Flatten()], (8, 8, 1), seed=0)
    x = normal(4, 8, 8, 1)
    np.testing.assert_allclose(model(x, training()), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([Residual(Dense(4))], (3,), r"\(layer 0\) adds shape \(4,\) of the branch and \(3,\) of"),
        ([Concatenate([], Flatten())], (2, 3), r"joins shapes \(2, 3\), \(6,\) on the last axis"),
        ([Residual(Residual(MaxPool()))], (4,), r"\(layer 0.branch_0.branch_0\) takes images"),
        ([Residual(*[Dense(4)] * 2)], (4,), "a layer is listed twice"),
        ([models.Attention(3)], (5, 8), r"3 heads \(layer 0\) divides the units .* got 8 units"),
        ([models.Attention(2)], (8,), r"takes sequences \(tokens, units\), got shape \(8,\)"),
        ([models.PositionEmbedding()], (8,), r"takes sequences \(tokens, units\)"),
        ([models.LayerNorm()], (), r"layer norm \(layer 0\) takes \[rows, ..., features\]"),
        ([Dense(3)], (), r"dense \(layer 0\) takes \[rows, ..., features\]"),
        ([models.Reshape(4, -1)], (6,), r"cannot turn shape \(6,\) into \(4, -1\)"),
        ([Convolution(4, groups=2)], (5, 5, 3), r"divides the channels by its groups, got 3"),
        ([GlobalAveragePool()], (5,), r"takes images .* or sequences .*, got shape \(5,\)"),
    ],
)
def test_refuses_misfit_layers(layers, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        models.Sequential("misfit", layers, shape, seed=0)
    assert "\n" not in str(error.value)


def test_refuses_layer_inside_and_outside():
    shared = Dense(4)
    with pytest.raises(ValueError, match="a layer is listed twice"):
        models.Sequential("misfit", [shared, Residual(shared)], (4,), seed=0)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (Residual, "a residual needs a layer"),
        (Concatenate, "a concatenate needs a branch"),
        (lambda: Convolution(4, stride=2, dilation=2), "has a stride or a dilation, got 2 and 2"),
        (lambda: Convolution(4, groups=3), "must be a multiple of its groups, got 4 and 3"),
        (lambda: Dense(4, kernel_initializer="he_norm"), "did you mean 'he_normal'?"),
        (lambda: Activation("gleu"), "got 'gleu'; did you mean '[gs]elu'?"),
        (lambda: models.LayerNorm(0), "epsilon of a layer norm must be above 0, got 0"),
        (
            lambda: models.Attention(0),
            "heads of an attention must be an integer of at least 1, got 0",
        ),
        (lambda: models.Attention(1, dropout=1.0), r"rate of a dropout must be in \[0, 1\)"),
        (lambda: models.Reshape(-1, -1), "1 or more, or one -1"),
        (lambda: models.Embedding(0, 3), "vocabulary of an embedding must be an integer"),
        (lambda: models.ConvolutionTranspose(0), "filters of a transposed convolution must be"),
    ],
)
def test_refuses_impossible_layer(declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


def test_summary_of_nested_layers():
    layers = [
        Residual(Dense(4), Residual(Dense(4), Dropout(0.5)), shortcut=Dense(4)),
        *(Activation("relu"), models.Attention(2), Flatten(), Dense(3)),
    ]
    model = models.Sequential("network", layers, (5, 2), seed=0)
    assert models.rows(model) == [
        LayerSummary("residual, relu", (5, 4), 0),
        LayerSummary("  branch: dense", (5, 4), 12),
        LayerSummary("  branch: residual", (5, 4), 0),
        LayerSummary("    branch: dense, dropout 0.5", (5, 4), 20),
        LayerSummary("  shortcut: dense", (5, 4), 12),
        LayerSummary("attention of 2 heads", (5, 4), 76),
        LayerSummary("flatten", (20,), 0),
        LayerSummary("dense", (3,), 63),
    ]
    assert models.table(model).splitlines()[-1].split()[-1] == "183"


def test_checkpoint_round_trip(tmp_path):
    model = models.Sequential("saved", network(), (6, 6, 1), seed=0)
    for index, variable in enumerate(model.variables):
        variable.assign(normal(*variable.shape, seed=index))
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    other = models.Sequential("saved", network(), (6, 6, 1), seed=1)
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    for saved, restored in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(saved, restored)


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.25}, {"rotary": True}, {"causal": True}])
@pytest.mark.parametrize("token", [0, 2, -1])
def test_one_token_of_a_block(token, settings):
    """A block computes one token of its outputs alone, with the same output and gradients."""
    block, x = made(TransformerBlock(8, 2, key_bias=True, **settings), (5, 8)), normal(3, 5, 8)
    variables, weight = block.trainable_variables, tf.ones([3, 8], tf.float64)
    found, expected = (
        outputs_and_gradients(function, x, weight, variables)
        for function in (
            lambda x: block(x, training(), token),
            lambda x: block(x, training())[:, token],
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_selected_token_joins_a_block():
    """Right after a block at the end of a network, and nowhere else."""
    block, norm, select = TransformerBlock(8, 2), LayerNorm(), SelectToken(1)
    assert pooled([block, select, norm]) == [(0, block, select), (2, norm, None)]
    assert pooled([block, norm, select])[1:] == [(1, norm, None), (2, select, None)]
    network = Sequential("tokens", [block, select], (5, 8), seed=0)
    x = normal(3, 5, 8)
    whole = block(x, EVALUATION)[:, 1]
    np.testing.assert_allclose(network(x, EVALUATION), whole, rtol=1e-5, atol=1e-6)
