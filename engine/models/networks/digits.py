"""The built-in networks: lists of layers for any number of outputs and any supported image size.

The last layer has no activation: the outputs are logits. `seed_000` to `seed_004` are five
classifiers of 28x28 images of handwritten digits, exactly as their authors designed them;
`recipes/` trains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import Activation, Convolution, Dense, Dropout, Flatten, MaxPool


def logistic(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of multinomial logistic regression: a dense layer on flattened inputs."""
    return [Flatten(), Dense(outputs.shape[0])]


def mlp(outputs: tf.TensorSpec, hidden: Sequence[int]) -> list[Layer]:
    """Returns the layers of an MLP with one hidden ReLU layer per element of `hidden`."""
    return [Flatten(), *(Dense(units, "relu") for units in hidden), Dense(outputs.shape[0])]


def cnn(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a small CNN, the default network, for images of 4x4 or larger.

    Two 3x3 convolutions of 32 and 64 filters, each followed by a 2x2 max pool, and a dropout of
    rate 0.25 precede the output layer.
    """
    return [*_pooled(32, 64, padding="SAME"), Flatten(), Dropout(0.25), Dense(outputs.shape[0])]


def speedrun(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a fast CNN, with strides instead of pooling, and one batch norm.

    Images must be 16x16 or larger. Of a 28x28 image the network uses all rows and columns: the
    feature maps are 13x13, 6x6 and 4x4. The batch norm has a momentum of 0.9, because a run of a
    few seconds has only a few hundred steps.
    """
    return [
        Convolution(16, size=4, stride=2, activation="relu"),
        Convolution(32, stride=2, activation="relu"),
        Convolution(64),
        BatchNorm(momentum=0.9),
        Activation("relu"),
        Flatten(),
        Dense(outputs.shape[0]),
    ]


def seed_000(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a CNN: two convolutions with pooling, a hidden dense layer.

    Each 3x3 convolution has 32 filters; a 2x2 max pool follows each. The hidden layer has 64 units.
    """
    return [*_pooled(32, 32), Flatten(), Dense(64, "relu"), Dense(outputs.shape[0])]


def seed_001(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a CNN: three convolutions, two of them with pooling, a hidden layer.

    The 3x3 convolutions have 32, 64 and 64 filters; a 2x2 max pool follows the first and the
    second. The hidden dense layer has 64 units.
    """
    convolutions = [*_pooled(32, 64), Convolution(64, activation="relu")]
    return [*convolutions, Flatten(), Dense(64, "relu"), Dense(outputs.shape[0])]


def seed_002(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a CNN: two convolutions with pooling, of only 10 and 5 filters.

    A 2x2 max pool follows each 3x3 convolution.
    """
    return [*_pooled(10, 5), Flatten(), Dense(outputs.shape[0])]


def seed_003(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of a CNN: two convolutions with pooling, and a dropout of rate 0.5.

    The 3x3 convolutions have 32 and 64 filters; a 2x2 max pool follows each.
    """
    return [*_pooled(32, 64), Flatten(), Dropout(0.5), Dense(outputs.shape[0])]


def seed_004(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the layers of the CNN `seed_003` with a dropout rate of 0.25 instead of 0.5."""
    return [*_pooled(32, 64), Flatten(), Dropout(0.25), Dense(outputs.shape[0])]


def _pooled(*filters: int, padding: Literal["VALID", "SAME"] = "VALID") -> list[Layer]:
    """Returns a 3x3 ReLU convolution and a 2x2 max pool for each number of filters."""
    return [
        layer
        for count in filters
        for layer in (Convolution(count, padding=padding, activation="relu"), MaxPool())
    ]
