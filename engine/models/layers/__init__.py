"""Layers built from `tf.nn` operations.

Images are [rows, height, width, channels], vectors [rows, features], sequences [rows, tokens,
units]. Shapes in `build` have no batch axis.
"""

from engine.models.layers.activation import Activation
from engine.models.layers.attention import Attention
from engine.models.layers.composite import Concatenate, Residual
from engine.models.layers.convolution import Convolution
from engine.models.layers.dense import Dense, Flatten, Reshape
from engine.models.layers.depthwise_convolution import DepthwiseConvolution
from engine.models.layers.dropout import Dropout
from engine.models.layers.embedding import Embedding, PositionEmbedding, TiedOutput
from engine.models.layers.normalization import LayerNorm
from engine.models.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from engine.models.layers.rescaling import Rescaling
from engine.models.layers.shortcut import PaddedShortcut
from engine.models.layers.tokens import ClassToken, SelectToken
from engine.models.layers.transformer_block import TransformerBlock
from engine.models.layers.transposed_convolution import ConvolutionTranspose
from engine.models.layers.whitening import Whitening

__all__ = [
    "Activation",
    "Attention",
    "AveragePool",
    "ClassToken",
    "Concatenate",
    "Convolution",
    "ConvolutionTranspose",
    "Dense",
    "DepthwiseConvolution",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePool",
    "LayerNorm",
    "MaxPool",
    "PaddedShortcut",
    "PositionEmbedding",
    "Rescaling",
    "Reshape",
    "Residual",
    "SelectToken",
    "TiedOutput",
    "TransformerBlock",
    "Whitening",
]
