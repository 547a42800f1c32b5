"""Checks of the settings and the input shapes of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config.option import did_you_mean
from engine.models.base import Initializer, Layer, Shape


def image_shape(layer: Layer, shape: Shape, smallest: int, initializer: Initializer) -> Shape:
    """Checks that `shape` is that of an image, (height, width, channels); returns `shape`.

    Raises ValueError if the rank is not 3, or the height or the width is below `smallest`.
    """
    if len(shape) != 3:
        raise ValueError(
            f"{called(layer, initializer)} takes images (height, width, channels), got shape"
            f" {shape}: put it before Flatten()"
        )
    height, width, _ = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{called(layer, initializer)} needs an image of at least {smallest}x{smallest}, got"
            f" {height}x{width}: use larger images (--image_size) or a network for any size"
            " (--model=mlp)"
        )
    return shape


def called(layer: Layer, initializer: Initializer) -> str:
    """Returns the name of a layer in error messages, for example "dense relu (layer 3)"."""
    return f"{layer.label} (layer {initializer.place})"


def at_least_one(what: str, value: int) -> int:
    """Returns `value`; raises ValueError, which names `what`, unless it is an integer above 0."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be an integer of at least 1, got {value}")
    return value


def one_of(what: str, value: Any, known: Sequence[Any]) -> Any:
    """Returns `value`; raises ValueError, which names `what`, if it is not one of `known`."""
    if not any(value is each or value == each for each in known):
        guess = did_you_mean(str(value), [str(each) for each in known if each])
        raise ValueError(
            f"{what} must be one of {', '.join(map(str, known))}, got {value!r}{guess}"
        )
    return value
