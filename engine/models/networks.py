"""The built-in networks: lists of layers for any number of classes and any supported image size.

`logistic`, `mlp`, `cnn` and `speedrun` are designs of this project. `seed_000` to `seed_004` are
five classifiers of 28x28 images of handwritten digits, exactly as their authors designed them;
`recipes/` trains them. `registry` lists the names of all networks.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.models.base import Layer
from engine.models.batch_norm import BatchNorm
from engine.models.layers import Activation, Convolution, Dense, Dropout, Flatten, MaxPool


def logistic(classes: int) -> list[Layer]:
    """Returns multinomial logistic regression, the baseline for the other networks."""
    return [Flatten(), Dense(classes)]


def mlp(classes: int, hidden: Sequence[int]) -> list[Layer]:
    """Returns a multilayer perceptron with one hidden ReLU layer per element of `hidden`."""
    return [Flatten(), *(Dense(units, "relu") for units in hidden), Dense(classes)]


def cnn(classes: int) -> list[Layer]:
    """Returns the default network: small, with SAME padding, for images of 4x4 or larger."""
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
    """Returns a fast network: strides instead of pooling, and a batch norm on the smallest maps.

    It supports images of 16x16 or larger. Of a 28x28 image it uses all rows and columns: the
    feature maps are 13x13, 6x6 and 4x4. The momentum of the batch norm is low, because a run of a
    few seconds has only a few hundred steps.
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
    """Returns two convolutions with 32 filters each and a hidden dense layer."""
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
    """Returns three convolutions, the last without pooling, and a hidden dense layer."""
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
    """Returns the smallest of the five networks: convolutions with 10 and with 5 filters."""
    return [
        Convolution(10, activation="relu"),
        MaxPool(),
        Convolution(5, activation="relu"),
        MaxPool(),
        Flatten(),
        Dense(classes),
    ]


def seed_003(classes: int) -> list[Layer]:
    """Returns two convolutions and a dropout with rate 0.5."""
    return _two_convolutions_with_dropout(classes, rate=0.5)


def seed_004(classes: int) -> list[Layer]:
    """Returns `seed_003` with half the dropout rate, 0.25."""
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
