"""The networks by name.

A factory of a network returns its layers, new ones at each call; the last one computes the logits.
It takes any of `input_shape`, the shape of the images (height, width, channels), `classes`, the
number of classes, and `hidden`, the widths of the hidden layers::

    @NETWORKS.register
    def linear(classes):
        return [Flatten(), Dense(classes)]

This module imports no TensorFlow, so that the names are known at once.
"""

from __future__ import annotations

from engine.config.registry import Registry

NETWORKS = Registry(
    "model",
    {
        "logistic": "engine.models.networks:logistic",
        "mlp": "engine.models.networks:mlp",
        "cnn": "engine.models.networks:cnn",
        "speedrun": "engine.models.networks:speedrun",
        "seed_000": "engine.models.networks:seed_000",
        "seed_001": "engine.models.networks:seed_001",
        "seed_002": "engine.models.networks:seed_002",
        "seed_003": "engine.models.networks:seed_003",
        "seed_004": "engine.models.networks:seed_004",
    },
)
