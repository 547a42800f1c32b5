"""Checks of the settings and the input shapes of layers."""

from __future__ import annotations

from engine.models.base import Initializer, Layer, Shape


def image_shape(layer: Layer, shape: Shape, smallest: int, initializer: Initializer) -> Shape:
    """Returns `shape`; raises ValueError if its rank is not 3 or a side is below `smallest`."""
    name = f"{layer.label} (layer {initializer.index})"
    if len(shape) != 3:
        raise ValueError(
            f"{name} takes images (height, width, channels), got shape {shape}:"
            " put it before Flatten()"
        )
    height, width, _ = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{name} needs an image of at least {smallest}x{smallest}, got {height}x{width}:"
            " use larger images (--image_size) or a network for any size (--model=mlp)"
        )
    return shape


def at_least_one(what: str, value: int) -> int:
    """Returns `value`; raises ValueError if it is below 1."""
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}")
    return value


def one_of(what, value, known):
    """Returns `value`; raises ValueError if it is not one of `known`."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(str, known))}, got {value!r}")
    return value
