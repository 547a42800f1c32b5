"""Registers and builds networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from engine.models.base import Layer
from engine.models.sequential import Sequential

# (input_shape, classes, hidden) -> layers
Network = Callable[[tuple[int, int, int], int, Sequence[int]], list[Layer]]

_networks: dict[str, Network] = {}


def register(name: str) -> Callable[[Network], Network]:
    """Registers a network under a name, for `build`.

    The decorated function takes the shape of the images (height, width, channels), the number of
    classes and the widths of the hidden layers. It returns new layers; the last one computes the
    logits::

        @register("linear")
        def linear(input_shape, classes, hidden):
            return [Flatten(), Dense(classes)]

    Args:
      name: name of the network, a Python identifier.

    Raises:
      ValueError: for a name that is registered already or is not a Python identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of a model must be a Python identifier, got {name!r}")
    if name in _networks:
        raise ValueError(f"a model named {name!r} is registered already; choose another name")

    def remember(network: Network) -> Network:
        _networks[name] = network
        return network

    return remember


def names() -> tuple[str, ...]:
    """Returns the names of the registered networks, sorted."""
    return tuple(sorted(_networks))


def build(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    hidden: Sequence[int] = (512, 512),
) -> Sequential:
    """Builds the network `name` with weights that are a pure function of `seed`.

    Args:
      name: name of a registered network.
      input_shape: (height, width, channels) of the images.
      classes: number of classes.
      seed: seed of the weights.
      hidden: widths of the hidden layers, for networks that let the user choose them.

    Raises:
      ValueError: for an unknown name, for images that the network does not support, and for a
        network whose number of logits is not `classes`.
    """
    if name not in _networks:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise ValueError(f"unknown model {name!r}{hint} known: {', '.join(names())}")
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(
            f"the shape of the images must be (height, width, channels), got {tuple(input_shape)}"
        )
    layers = _networks[name](input_shape, classes, hidden)
    model = Sequential(name, layers, input_shape, seed)
    if model.classes != classes:
        raise ValueError(
            f"{name} gives {model.classes} logits for {classes} classes:"
            " its last layer must be Dense(classes)"
        )
    return model
