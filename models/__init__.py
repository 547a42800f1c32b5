"""Networks as `tf.Module`s on `tf.nn`, by name.

    model = build("cnn", input_shape=(28, 28, 1), classes=10, seed=0)
    logits = model(images)                                        # to evaluate
    logits = model(images, Pass(training=True, noise=Noise(seed=0, step=step)))
    print(table(model))

A network is a list of layers, given to `register`; the built-in ones are in `networks.py`. Its
layers are pure functions: whatever a pass needs besides the images comes in as a `Pass`, and what
it would write leaves in `Pass.updates`. A layer of your own derives from `Layer` (`contract.py`).
Nothing here knows of training: neither `engine` nor `pipelines` is imported.
"""

from models import networks as networks  # registers the built-in networks
from models.batch_norm import BatchNorm
from models.contract import Initializer, Layer, Pass, Update
from models.layers import (
    Activation,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
)
from models.noise import Noise
from models.registry import build, names, register
from models.sequential import Sequential
from models.summary import Row, rows, table

__all__ = [
    "Activation",
    "BatchNorm",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "Initializer",
    "Layer",
    "MaxPool",
    "Noise",
    "Pass",
    "Row",
    "Sequential",
    "Update",
    "build",
    "names",
    "register",
    "rows",
    "table",
]
