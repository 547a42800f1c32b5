"""Residual networks (He et al., 2016, "Deep residual learning for image recognition").

Depths 18, 34, 50 and 101 are torchvision's, in version 1.5, in which the 3x3 convolution of a
bottleneck has the stride (Goyal et al., 2017, "Accurate, large minibatch SGD"). Depths 20, 32, 44,
56 and 110 are those of section 4.2 of He et al. for CIFAR-10, with shortcuts without weights
(option A). Kernels are padded symmetrically. Convolutions start from the normal distribution of He
et al. 2015 (fan out, as in torchvision), the last layer from one of standard deviation 0.01 (Goyal
et al.). Batch norms have an epsilon of 1e-5 and a momentum of 0.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import (
    Activation,
    Convolution,
    Dense,
    GlobalAveragePool,
    MaxPool,
    PaddedShortcut,
    Residual,
)
from engine.models.networks.checks import class_count

_Branch = Callable[[int, int, bool], list[Layer]]  # of (width, stride, zero_scale)

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # by stage
_SMALL = (20, 32, 44, 56, 110)  # 6n + 2: three stages of n blocks


def layers(inputs: Any, outputs: Any, depth: int, zero_scale: bool) -> list[Layer]:
    """Returns the layers of the residual network of a depth; see `factories.resnet`.

    Raises:
      ValueError: if `depth` is none of those above, or the task needs other outputs.
    """
    classes = class_count("resnet", outputs)
    if depth in _SMALL:
        found = _for_small_images((depth - 2) // 6, zero_scale)
    elif depth in _BLOCKS:
        found = _for_large_images(depth, zero_scale)
    else:
        known = ", ".join(map(str, sorted([*_BLOCKS, *_SMALL])))
        raise ValueError(f"--model.depth={depth}: --model=resnet has one of the depths {known}")
    head = Dense(classes, kernel_initializer="normal", kernel_stddev=0.01)
    return [*found, GlobalAveragePool(), head]


def _for_small_images(blocks: int, zero_scale: bool) -> list[Layer]:
    found: list[Layer] = [*_normalized(16, 3), Activation("relu")]
    channels = 16
    for width in (16, 32, 64):
        for _ in range(blocks):
            stride = 1 if width == channels else 2
            shortcut = [] if stride == 1 else [PaddedShortcut(width, stride)]
            branch = _basic(width, stride, zero_scale)
            found += [Residual(*branch, shortcut=shortcut), Activation("relu")]
            channels = width
    return found


def _for_large_images(depth: int, zero_scale: bool) -> list[Layer]:
    found: list[Layer] = [*_normalized(64, 7, 2), Activation("relu"), MaxPool(3, 2, 1)]
    make: _Branch
    make, expansion = (_basic, 1) if depth < 50 else (_bottleneck, 4)
    channels = 64
    for stage, blocks in enumerate(_BLOCKS[depth]):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            changes = stride > 1 or channels != expansion * width
            shortcut = _normalized(expansion * width, 1, stride) if changes else []
            branch = make(width, stride, zero_scale)
            found += [Residual(*branch, shortcut=shortcut), Activation("relu")]
            channels = expansion * width
    return found


def _basic(width: int, stride: int, zero_scale: bool) -> list[Layer]:
    """Returns the branch of a block of two 3x3 convolutions."""
    last = _normalized(width, 3, zero_scale=zero_scale)
    return [*_normalized(width, 3, stride), Activation("relu"), *last]


def _bottleneck(width: int, stride: int, zero_scale: bool) -> list[Layer]:
    """Returns the branch of a block of a 1x1, a 3x3 and a 1x1 convolution, of 4 * width filters."""
    return [
        *(*_normalized(width, 1), Activation("relu")),
        *(*_normalized(width, 3, stride), Activation("relu")),
        *_normalized(4 * width, 1, zero_scale=zero_scale),
    ]


def _normalized(
    filters: int, size: int, stride: int = 1, *, zero_scale: bool = False
) -> list[Layer]:
    """Returns a convolution of odd `size`, padded symmetrically, and a batch norm."""
    convolution = Convolution(
        *(filters, size, stride, size // 2),
        use_bias=False,
        kernel_initializer="he_normal_fan_out",
    )
    return [convolution, BatchNorm(momentum=0.9, epsilon=1e-5, zero_scale=zero_scale)]
