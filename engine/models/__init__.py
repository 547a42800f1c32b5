"""Networks by name, as `tf.Module`s on `tf.nn`.

    model = build("cnn", input_shape=(28, 28, 1), classes=10, seed=0)
    logits = model(images)  # evaluation
    context = ForwardContext(training=True, noise=StatelessRNG(seed=0, step=step))
    logits = model(images, context)  # training
    print(table(model))

A network is a list of layers, registered with `register`; the built-in ones are in `networks.py`.
Layers are pure functions: a `ForwardContext` holds all inputs of a forward pass except the images,
and `ForwardContext.updates` collects the new values of variables. A custom layer derives from
`Layer` (`base.py`). The package is independent of training: it imports nothing else of `engine`,
and not `pipelines`.
"""

from engine.models import networks as networks  # registers the built-in networks
from engine.models.base import ForwardContext, Initializer, Layer, StatisticUpdate
from engine.models.batch_norm import BatchNorm
from engine.models.layers import (
    Activation,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
)
from engine.models.registry import build, names, register
from engine.models.sequential import Sequential
from engine.models.stateless_random import StatelessRNG
from engine.models.summary import LayerSummary, rows, table

__all__ = [
    "Activation",
    "BatchNorm",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "ForwardContext",
    "GlobalAveragePool",
    "Initializer",
    "Layer",
    "LayerSummary",
    "MaxPool",
    "Sequential",
    "StatelessRNG",
    "StatisticUpdate",
    "build",
    "names",
    "register",
    "rows",
    "table",
]
