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
