"""Networks that benchmarks load with `--load`, of Tapeline's layers."""

from __future__ import annotations

import tensorflow as tf

import tapeline as tl
from tapeline import models


def _convolution(filters: int, size: int = 3, stride: int = 1) -> list[models.Layer]:
    convolution = models.Convolution(filters, size, stride, "SAME", use_bias=False)
    return [convolution, models.BatchNorm()]


def _block(filters: int, stride: int, widens: bool) -> list[models.Layer]:
    """Returns the basic block of He et al. 2016, with two 3x3 convolutions."""
    branch = [*_convolution(filters, 3, stride), models.Activation("relu"), *_convolution(filters)]
    shortcut = _convolution(filters, 1, stride) if widens else ()
    return [models.Residual(*branch, shortcut=shortcut), models.Activation("relu")]


@tl.model
def resnet_18(outputs: tf.TensorSpec, *, width: int = 64) -> list[models.Layer]:
    """ResNet-18 of He et al. 2016 for images of 32x32: no pool, a first convolution of 3x3.

    Args:
      outputs: spec of the logits.
      width: channels of the first stage.
    """
    layers = [*_convolution(width), models.Activation("relu")]
    for stage in range(4):
        for index in range(2):
            first = stage > 0 and index == 0
            layers += _block(width << stage, 2 if first else 1, first)
    return [*layers, models.GlobalAveragePool(), models.Dense(outputs.shape[-1])]


@tl.model
def deep_transformer(outputs, *, depth: int = 12, units: int = 64, dropout: float = 0.1):
    """Returns the layers of a causal transformer of the rows of an image, with dropout."""
    layers = tl.models

    def block():
        attention = layers.Attention(4, causal=True, dropout=dropout)
        dense = (layers.Dense(4 * units, "gelu"), layers.Dense(units))
        return (
            layers.Residual(layers.LayerNorm(), attention, layers.Dropout(dropout)),
            layers.Residual(layers.LayerNorm(), *dense, layers.Dropout(dropout)),
        )

    first = [layers.Reshape(-1, 8), layers.Dense(units), layers.PositionEmbedding()]
    blocks = [layer for _ in range(depth) for layer in block()]
    last = [layers.LayerNorm(), layers.GlobalAveragePool(), layers.Dense(outputs.shape[-1])]
    return [*first, *blocks, *last]
