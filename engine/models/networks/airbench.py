"""The network of Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (airbench94).

A whitening convolution with GELU, and blocks of two 3x3 convolutions, the first with a max pool,
each with a batch norm and GELU. The first filters of each convolution start as an identity, so that
a block starts as a pool. Batch norms have no scale, an epsilon of 1e-12 and a momentum of 0.6. The
last layer has no bias, and its outputs are scaled down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import (
    Activation,
    Convolution,
    Dense,
    Flatten,
    MaxPool,
    Rescaling,
    Whitening,
)
from engine.models.networks.checks import class_count, one_tensor


def layers(
    inputs: Any, outputs: Any, widths: Sequence[int], whitening: int, logit_scale: float
) -> list[Layer]:
    """Returns the layers of the network; see `factories.airbench`.

    Raises:
      ValueError: if an argument is invalid, the inputs are not images that are large enough for the
        blocks, or the task needs other outputs.
    """
    classes, shape = class_count("airbench", outputs), one_tensor("airbench", "inputs", inputs)
    if len(shape) != 3:
        raise ValueError(
            f"--model=airbench takes images (height, width, channels), got shape {shape}: give"
            " another network"
        )
    flag = f"--model.widths={','.join(map(str, widths))}"
    if not widths or min(widths) < 1:
        raise ValueError(f"{flag}: give the numbers of filters of one block or more, each above 0")
    side = (min(shape[:2]) - whitening + 1) >> len(widths)
    if side < 1:
        raise ValueError(
            f"{flag}: each block halves the images, which are {shape[0]}x{shape[1]}: give fewer"
            " blocks, or a larger --image_size"
        )
    return [
        Whitening(whitening),
        Activation("gelu"),
        *(layer for width in widths for layer in _block(width)),
        *([MaxPool(side)] if side > 1 else []),
        Flatten(),
        Dense(classes, use_bias=False, kernel_initializer="fan_in_uniform"),
        Rescaling(logit_scale),
    ]


def _block(width: int) -> list[Layer]:
    """Returns a block of two convolutions of `width` filters, which halves the images."""
    return [
        *(_convolution(width), MaxPool(2), _norm(), Activation("gelu")),
        *(_convolution(width), _norm(), Activation("gelu")),
    ]


def _convolution(width: int) -> Layer:
    return Convolution(width, 3, padding="SAME", use_bias=False, kernel_initializer="dirac")


def _norm() -> Layer:
    return BatchNorm(momentum=0.6, epsilon=1e-12, use_scale=False)
