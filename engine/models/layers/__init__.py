"""Layers built from `tf.nn` operations.

Images are [rows, height, width, channels], vectors [rows, features]. Shapes in `build` have no
batch axis.
"""

from engine.models.layers.activation import Activation
from engine.models.layers.convolution import Convolution
from engine.models.layers.dense import Dense, Flatten
from engine.models.layers.dropout import Dropout
from engine.models.layers.pooling import GlobalAveragePool, MaxPool

__all__ = [
    "Activation",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
]
