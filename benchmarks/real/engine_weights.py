"""Reads and assigns the weights of the engine's networks by the names of the benchmarks.

The order is that of `benchmarks.real.arrays.shapes`. To be adapted when built-in networks replace
those of benchmarks/real/engine_networks.py.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tapeline import models


def weights_of(model: models.Sequential) -> list[tuple[tf.Variable | None, ...]]:
    """Returns the trainable weights of a network in the order of `benchmarks.real.arrays.shapes`.

    Each is a tuple of the variables that make it up, side by side on the last axis.
    """
    return [each for layer in model.layers for each in _of_layer(layer)]


def _of_layer(layer: models.Layer) -> list[tuple[tf.Variable, ...]]:
    if isinstance(layer, models.Residual):
        return [each for nested in layer.branch for each in _of_layer(nested)]
    if isinstance(layer, models.Attention):
        inner = layer.query, layer.key, layer.value
        kernels = tuple(each.kernel for each in inner)
        biases = [(layer.query.bias,), (layer.value.bias,)]
        return [kernels, *biases, *_of_layer(layer.output)]
    names = ("kernel", "bias", "scale", "offset", "table", "token")
    return [(getattr(layer, name),) for name in names if hasattr(layer, name)]


def assign(model: models.Sequential, values: dict[str, np.ndarray]) -> None:
    """Assigns weights by name, in the order of `benchmarks.real.arrays.shapes`, to a network."""
    for variables, value in zip(weights_of(model), values.values(), strict=True):
        for variable, part in zip(variables, np.split(value, len(variables), -1), strict=True):
            variable.assign(part)


def values_of(model: models.Sequential, names: list[str]) -> dict[str, np.ndarray]:
    """Returns the trainable weights of a network by the names of `benchmarks.real.arrays`."""
    parts = [[variable.numpy() for variable in each] for each in weights_of(model)]
    return {name: np.concatenate(each, -1) for name, each in zip(names, parts, strict=True)}
