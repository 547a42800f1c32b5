"""Reads and assigns the weights of the engine's networks by the names of the benchmarks.

The order is that of `benchmarks.real.arrays.shapes`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tapeline import models


def weights_of(model: models.Sequential) -> list[tuple[tf.Variable, ...]]:
    """Returns the trainable weights of a network in the order of `benchmarks.real.arrays.shapes`.

    Each is a tuple of the variables that make it up, side by side on the last axis. Biases of keys,
    which change nothing, are left out.
    """
    return [each for layer in model.layers for each in _of_layer(layer)]


def _of_layer(layer: models.Layer) -> list[tuple[tf.Variable, ...]]:
    if hasattr(layer, "parts"):  # residual, or block of a transformer
        nested = [each for part in layer.parts for each in part.layers]
        return [each for inner in nested for each in _of_layer(inner)]
    if isinstance(layer, models.Attention):
        kernels = layer.query.kernel, layer.key.kernel, layer.value.kernel
        biases = [(layer.query.bias,), (layer.value.bias,)]
        return [kernels, *biases, *_of_layer(layer.output)]
    names = ("kernel", "bias", "scale", "offset", "table", "token")
    found = [getattr(layer, name, None) for name in names]
    return [(each,) for each in found if isinstance(each, tf.Variable)]


def assign(model: models.Sequential, values: dict[str, np.ndarray]) -> None:
    """Assigns weights by name, in the order of `benchmarks.real.arrays.shapes`, to a network."""
    for variables, value in zip(weights_of(model), values.values(), strict=True):
        for variable, part in zip(variables, np.split(value, len(variables), -1), strict=True):
            variable.assign(part)


def values_of(model: models.Sequential, names: list[str]) -> dict[str, np.ndarray]:
    """Returns the trainable weights of a network by the names of `benchmarks.real.arrays`."""
    parts = [[variable.numpy() for variable in each] for each in weights_of(model)]
    return {name: np.concatenate(each, -1) for name, each in zip(names, parts, strict=True)}
