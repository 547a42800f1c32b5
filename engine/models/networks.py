"""The built-in networks: lists of layers for any number of outputs and any supported image size.

`seed_000` to `seed_004` are five classifiers of 28x28 images of handwritten digits, exactly as
their authors designed them; `recipes/` trains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import Activation, Convolution, Dense, Dropout, Flatten, MaxPool


def logistic(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns multinomial logistic regression: one dense layer on the flattened image."""
    return [Flatten(), Dense(outputs.shape[0])]


def mlp(outputs: tf.TensorSpec, hidden: Sequence[int]) -> list[Layer]:
    """Returns a multilayer perceptron with one hidden ReLU layer per element of `hidden`."""
    return [Flatten(), *(Dense(units, "relu") for units in hidden), Dense(outputs.shape[0])]


def cnn(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns a small CNN, the default network; it supports images of 4x4 or larger."""
    return [*_pooled(32, 64, padding="SAME"), Flatten(), Dropout(0.25), Dense(outputs.shape[0])]


def speedrun(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns a fast CNN with strides instead of pooling, and a batch norm on the last features.

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
    """Returns a CNN: two pooled convolutions of 32 filters, a hidden dense layer of 64 units."""
    return [*_pooled(32, 32), Flatten(), Dense(64, "relu"), Dense(outputs.shape[0])]


def seed_001(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns a CNN: two pooled convolutions, a third without pooling, a hidden dense layer."""
    convolutions = [*_pooled(32, 64), Convolution(64, activation="relu")]
    return [*convolutions, Flatten(), Dense(64, "relu"), Dense(outputs.shape[0])]


def seed_002(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns a CNN of two pooled convolutions with only 10 and 5 filters."""
    return [*_pooled(10, 5), Flatten(), Dense(outputs.shape[0])]


def seed_003(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns a CNN: two pooled convolutions of 32 and 64 filters, and a dropout of rate 0.5."""
    return [*_pooled(32, 64), Flatten(), Dropout(0.5), Dense(outputs.shape[0])]


def seed_004(outputs: tf.TensorSpec) -> list[Layer]:
    """Returns the CNN of `seed_003` with a dropout rate of 0.25 instead of 0.5."""
    return [*_pooled(32, 64), Flatten(), Dropout(0.25), Dense(outputs.shape[0])]


def _pooled(*filters: int, padding: Literal["VALID", "SAME"] = "VALID") -> list[Layer]:
    """Returns a 3x3 ReLU convolution and a 2x2 max pool for each number of filters."""
    return [
        layer
        for count in filters
        for layer in (Convolution(count, padding=padding, activation="relu"), MaxPool())
    ]
