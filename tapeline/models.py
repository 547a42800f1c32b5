"""Networks and layers, with which scripts build and register networks::

    import tapeline as tl

    @tl.model
    def linear(classes):
        return [tl.models.Flatten(), tl.models.Dense(classes)]

    model = tl.models.build("cnn", input_shape=(28, 28, 1), classes=10, seed=0)
    logits = model(images)  # evaluation
    noise = tl.models.StatelessRNG(seed=0, step=step)
    logits = model(images, tl.models.ForwardContext(training=True, noise=noise))  # training
    print(tl.models.table(model))

A layer of your own derives from `Layer`.
"""

from engine.models.base import ForwardContext, Initializer, Layer, StatisticUpdate
from engine.models.batch_norm import BatchNorm
from engine.models.build import build_model as build
from engine.models.layers import (
    Activation,
    Attention,
    AveragePool,
    Concatenate,
    Convolution,
    ConvolutionTranspose,
    Dense,
    DepthwiseConvolution,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    MaxPool,
    PositionEmbedding,
    Reshape,
    Residual,
)
from engine.models.registry import NETWORKS
from engine.models.sequential import Sequential
from engine.models.stateless_random import StatelessRNG
from engine.models.summary import LayerSummary, rows, table

register = NETWORKS.register

__all__ = [
    "Activation",
    "Attention",
    "AveragePool",
    "BatchNorm",
    "Concatenate",
    "Convolution",
    "ConvolutionTranspose",
    "Dense",
    "DepthwiseConvolution",
    "Dropout",
    "Embedding",
    "Flatten",
    "ForwardContext",
    "GlobalAveragePool",
    "Initializer",
    "Layer",
    "LayerNorm",
    "LayerSummary",
    "MaxPool",
    "PositionEmbedding",
    "Reshape",
    "Residual",
    "Sequential",
    "StatelessRNG",
    "StatisticUpdate",
    "build",
    "names",
    "register",
    "rows",
    "table",
]


def names() -> tuple[str, ...]:
    """Returns the names of the registered networks."""
    return tuple(NETWORKS)
