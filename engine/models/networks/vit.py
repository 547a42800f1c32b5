"""Vision transformers (Dosovitskiy et al., 2021, "An image is worth 16x16 words").

Sizes Ti and S are those of Touvron et al., 2021, "Training data-efficient image transformers". The
network has a class token, learned positions, pre-norm blocks with the exact GELU, and a final norm
of the class token before the last layer. Layer norms have an epsilon of 1e-6. Kernels, and the
table of positions, start from a truncated normal distribution of standard deviation 0.02. Keys have
biases, as in the published numbers of parameters; see `Attention`.
"""

from __future__ import annotations

from typing import Any

from engine.models.base import Layer
from engine.models.layers import (
    ClassToken,
    Convolution,
    Dense,
    Dropout,
    LayerNorm,
    PositionEmbedding,
    Reshape,
    SelectToken,
    TransformerBlock,
)
from engine.models.networks.checks import class_count, one_tensor

_DEPTH = 12
_HEADS = {"Ti": 3, "S": 6, "B": 12}  # of 64 units each
_EPSILON = 1e-6
_INITIALIZER = "truncated_normal"


def layers(inputs: Any, outputs: Any, size: str, patch: int, dropout: float) -> list[Layer]:
    """Returns the layers of a vision transformer; see `factories.vit`.

    Raises:
      ValueError: if the inputs are not images that patches of this size divide, or the task needs
        other outputs.
    """
    classes, shape = class_count("vit", outputs), one_tensor("vit", "inputs", inputs)
    if len(shape) != 3:
        raise ValueError(
            f"--model=vit takes images (height, width, channels), got shape {shape}: give another"
            " network"
        )
    if patch < 1 or any(side % patch for side in shape[:2]):
        raise ValueError(
            f"--model.patch={patch}: images of {shape[0]}x{shape[1]} cannot be divided into such"
            " patches; give a divisor of both sides, or another --image_size"
        )
    heads = _HEADS[size]
    units = 64 * heads

    def block() -> TransformerBlock:
        return TransformerBlock(
            *(units, heads),
            dropout=dropout,
            key_bias=True,
            epsilon=_EPSILON,
            kernel_initializer=_INITIALIZER,
        )

    return [
        Convolution(units, patch, patch, kernel_initializer=_INITIALIZER),
        Reshape(-1, units),
        ClassToken(),
        PositionEmbedding(),
        *([Dropout(dropout)] if dropout else []),
        *(block() for _ in range(_DEPTH)),
        SelectToken(0),
        LayerNorm(_EPSILON),
        Dense(classes, kernel_initializer=_INITIALIZER),
    ]
