"""The built-in networks: lists of layers, for any image size that fits, any number of classes.

`logistic`, `mlp`, `cnn` and `speedrun` are the engine's own. `seed_000` to `seed_004` are five
classifiers of 28x28 handwritten digits, exactly as their authors designed them; `recipes/` trains
them. `registry` lists their names.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import Activation, Convolution, Dense, Dropout, Flatten, MaxPool


def logistic(classes: int) -> list[Layer]:
    """Returns multinomial logistic regression: the baseline of the other networks."""
    return [Flatten(), Dense(classes)]


def mlp(classes: int, hidden: Sequence[int]) -> list[Layer]:
    """Returns a multilayer perceptron with one ReLU layer per entry of `hidden`."""
    return [Flatten(), *(Dense(units, "relu") for units in hidden), Dense(classes)]


def cnn(classes: int) -> list[Layer]:
    """Returns the default: small, and padded so that it supports images of 4x4 or larger."""
    return [
        Convolution(32, padding="SAME", activation="relu"),
        MaxPool(),
        Convolution(64, padding="SAME", activation="relu"),
        MaxPool(),
        Flatten(),
        Dropout(0.25),
        Dense(classes),
    ]


def speedrun(classes: int) -> list[Layer]:
    """Returns a fast network: strides instead of pools, and a batch norm where the image is small.

    It supports images of 16x16 or larger, and uses 28x28 to the last row: 28, 13, 6, 4. The moving
    averages of the batch norm are short, because a run of seconds has a few hundred steps.
    """
    return [
        Convolution(16, size=4, stride=2, activation="relu"),
        Convolution(32, stride=2, activation="relu"),
        Convolution(64),
        BatchNorm(momentum=0.9),
        Activation("relu"),
        Flatten(),
        Dense(classes),
    ]


def seed_000(classes: int) -> list[Layer]:
    """Returns two convolutions of the same width and a dense layer."""
    return [
        Convolution(32, activation="relu"),
        MaxPool(),
        Convolution(32, activation="relu"),
        MaxPool(),
        Flatten(),
        Dense(64, "relu"),
        Dense(classes),
    ]


def seed_001(classes: int) -> list[Layer]:
    """Returns three convolutions, the last without a pool, and a dense layer."""
    return [
        Convolution(32, activation="relu"),
        MaxPool(),
        Convolution(64, activation="relu"),
        MaxPool(),
        Convolution(64, activation="relu"),
        Flatten(),
        Dense(64, "relu"),
        Dense(classes),
    ]


def seed_002(classes: int) -> list[Layer]:
    """Returns the smallest network: ten filters, then five."""
    return [
        Convolution(10, activation="relu"),
        MaxPool(),
        Convolution(5, activation="relu"),
        MaxPool(),
        Flatten(),
        Dense(classes),
    ]


def seed_003(classes: int) -> list[Layer]:
    """Returns two convolutions and a dropout of 0.5."""
    return _two_convolutions_with_dropout(classes, rate=0.5)


def seed_004(classes: int) -> list[Layer]:
    """Returns `seed_003` with half its dropout."""
    return _two_convolutions_with_dropout(classes, rate=0.25)


def _two_convolutions_with_dropout(classes: int, rate: float) -> list[Layer]:
    return [
        Convolution(32, activation="relu"),
        MaxPool(),
        Convolution(64, activation="relu"),
        MaxPool(),
        Flatten(),
        Dropout(rate),
        Dense(classes),
    ]
