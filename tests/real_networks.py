"""The residual network and the vision transformer of the benchmarks W6 and W8, of any size."""

from __future__ import annotations

import tensorflow as tf

import tapeline as tl
from tapeline import models


@tl.model
def small_resnet(outputs: tf.TensorSpec, *, width: int = 4, blocks: int = 1) -> list[models.Layer]:
    """Returns the network of He et al. 2016 for CIFAR-10, with shortcuts of option A.

    Args:
      outputs: spec of the logits.
      width: channels of the first stage.
      blocks: blocks of a stage.
    """
    layers, channels = [*_normalized(width), models.Activation("relu")], width
    for filters in (width, 2 * width, 4 * width):
        for _ in range(blocks):
            stride = 1 if filters == channels else 2
            branch = [*_normalized(filters, stride), models.Activation("relu")]
            shortcut = [] if stride == 1 else [models.PaddedShortcut(filters, stride)]
            layers.append(models.Residual(*branch, *_normalized(filters), shortcut=shortcut))
            layers.append(models.Activation("relu"))
            channels = filters
    return [*layers, models.GlobalAveragePool(), models.Dense(outputs.shape[-1])]


@tl.model
def small_vit(
    outputs: tf.TensorSpec, *, depth: int = 1, heads: int = 2, units: int = 8, patch: int = 4
) -> list[models.Layer]:
    """Returns a vision transformer with a class token.

    Args:
      outputs: spec of the logits.
      depth: number of blocks.
      heads: heads of an attention.
      units: size of the residual stream.
      patch: side of a patch in pixels.
    """
    blocks = [models.TransformerBlock(units, heads, epsilon=1e-6) for _ in range(depth)]
    return [
        *(models.Convolution(units, patch, patch), models.Reshape(-1, units)),
        *(models.ClassToken(), models.PositionEmbedding()),
        *(*blocks, models.SelectToken(0), models.LayerNorm(1e-6)),
        models.Dense(outputs.shape[-1]),
    ]


def _normalized(filters: int, stride: int = 1) -> list[models.Layer]:
    convolution = models.Convolution(filters, 3, stride, 1, use_bias=False)
    return [convolution, models.BatchNorm(momentum=0.9, epsilon=1e-5)]
