"""Networks and layers, with which scripts build and register networks::

    import tapeline as tl

    @tl.model
    def linear(outputs):
        return [tl.models.Flatten(), tl.models.Dense(outputs.shape[-1])]

    model = tl.models.build("cnn", input_shape=(28, 28, 1), output_shape=(10,), seed=0)
    logits = model(images)  # evaluation
    noise = tl.models.StatelessRNG(seed=0, step=step)
    logits = model(images, tl.models.ForwardContext(training=True, noise=noise))  # training
    print(tl.models.table(model))

User-defined layers derive from `Layer`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, StatisticUpdate
from engine.models.batch_norm import BatchNorm
from engine.models.build import build_model
from engine.models.layers import (
    Activation,
    Attention,
    AveragePool,
    ClassToken,
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
    PaddedShortcut,
    PositionEmbedding,
    Rescaling,
    Reshape,
    Residual,
    SelectToken,
    TiedOutput,
    TransformerBlock,
    Whitening,
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
    "ClassToken",
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
    "PaddedShortcut",
    "PositionEmbedding",
    "Rescaling",
    "Reshape",
    "Residual",
    "SelectToken",
    "Sequential",
    "StatelessRNG",
    "StatisticUpdate",
    "TiedOutput",
    "TransformerBlock",
    "Whitening",
    "build",
    "names",
    "register",
    "rows",
    "table",
]


def build(
    name: str,
    *,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    seed: int,
    hidden: Sequence[int] = (512, 512),
    arguments: Mapping[str, Any] | None = None,
    input_dtype: tf.DType = tf.float32,
) -> tf.Module:
    """Builds a registered network for inputs and outputs that are one tensor each.

    The network does not scale its inputs: scale images to 0..1 before you call it.

    Args:
      name: name of the network.
      input_shape: shape of an example's input, without the batch axis.
      output_shape: shape of an example's output, without the batch axis.
      seed: seed of the initial weights.
      hidden: number of units of each hidden layer, for a network that has this parameter.
      arguments: further arguments of the network by name, such as `{"depth": 50}`.
      input_dtype: dtype of the inputs.

    Raises:
      ValueError: as `engine.models.build.build_model`.
    """
    specs = {
        "inputs": tf.TensorSpec(input_shape, input_dtype),
        "outputs": tf.TensorSpec(output_shape),
    }
    return build_model(name, **specs, seed=seed, hidden=hidden, arguments=arguments)


def names() -> tuple[str, ...]:
    """Returns the names of the registered networks, first the built-in ones."""
    return tuple(NETWORKS)
