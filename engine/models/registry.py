"""The registry of networks by name.

The factory of a network returns a list of new layers at each call; the last one computes the
logits. Its parameters are any of `input_shape`, the shape (height, width, channels) of the images,
`classes`, the number of classes, and `hidden`, the numbers of units of the hidden layers::

    @NETWORKS.register
    def linear(classes):
        return [Flatten(), Dense(classes)]

This module does not import TensorFlow, so that the names are available without that delay.
"""

from __future__ import annotations

from engine.config.registry import Registry

_NAMES = ("logistic", "mlp", "cnn", "speedrun", *(f"seed_{number:03}" for number in range(5)))

NETWORKS = Registry(
    "model",
    {name: f"engine.models.networks:{name}" for name in _NAMES},
    passed=("inputs", "outputs", "input_shape", "classes", "hidden"),
)
