"""Builds networks by name."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config.registry import parameters
from engine.models.registry import NETWORKS
from engine.models.sequential import Sequential


def build_model(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    hidden: Sequence[int] = (512, 512),
) -> Sequential:
    """Builds a registered network, whose initial weights are a pure function of `seed`.

    `input_shape` is (height, width, channels) of the images; `hidden` holds the number of units of
    each hidden layer, for a network whose factory has this parameter.

    Raises:
      ValueError: for an unknown name, for an image shape that the network does not support, and for
        a network whose number of logits is not `classes`.
    """
    factory = NETWORKS[name]
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(
            f"the shape of the images must be (height, width, channels), got {tuple(input_shape)}"
        )
    values = {"input_shape": input_shape, "classes": classes, "hidden": hidden}
    layers = factory(**{each: values[each] for each in parameters(factory) & values.keys()})
    model = Sequential(name, layers, input_shape, seed)
    if model.classes != classes:
        raise ValueError(
            f"{name} gives {model.classes} logits for {classes} classes:"
            " its last layer must be Dense(classes)"
        )
    return model
