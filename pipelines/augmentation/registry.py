"""Registry of the transforms that `--augment` names: the built-in ones, and a user's functions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from pipelines.augmentation.checks import check_new
from pipelines.augmentation.mixing import MIXING
from pipelines.augmentation.warp import NUMBERS

# (images float32 [rows, H, W, C], random numbers float32 [rows, n] in [0, 1), strength) -> images
Transform = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
# (inputs, targets, random numbers float32 [rows, n] in [0, 1), strength) -> (inputs, targets)
PairTransform = Callable[[Any, Any, tf.Tensor, float], tuple[Any, Any]]


class Registered(NamedTuple):
    """A registered transform, its number of random numbers, its default and largest strength."""

    transform: Callable[..., Any]  # a Transform or PairTransform
    numbers: int  # of random numbers for each example
    default: float  # strength if `--augment` gives none
    maximum: float  # largest strength; 0: the transform takes none


image_transforms: dict[str, Registered] = {}
pair_transforms: dict[str, Registered] = {}


def names() -> tuple[str, ...]:
    """Returns the names of all transforms, in the order of their columns of random numbers.

    Transforms are applied in this order, except that shift, rotation, zoom, shear and elastic are
    one resampling, see `warp`, and that mixup and cutmix each apply to some of the examples, if
    both are selected.
    """
    pixels = ("crop", "flip", "randaugment", *NUMBERS, "color_jitter")
    images = (*pixels, "cutout", *image_transforms, *MIXING)
    return ("resized_crop", *pair_transforms, *images)


def registered_names() -> tuple[str, ...]:
    """Returns the names of the transforms that `register_pair` and `register` have added."""
    return (*pair_transforms, *image_transforms)


def register(
    name: str, *, numbers: int, default: float, maximum: float
) -> Callable[[Transform], Transform]:
    """Returns a decorator that registers a transform for `--augment=NAME[:STRENGTH]`.

    The decorated function takes images after the scaling of `--scale`, float32 [rows, H, W, C]
    (with `unit` in 0..1), random numbers, float32 [rows, numbers] in [0, 1), and the strength, and
    returns images of the same shape. Row i of the output may depend only on row i of the inputs
    (law L3 of docs/concepts/laws.md). The transform is applied after cutout and before mixup and
    CutMix::

        @register("brightness", numbers=1, default=0.2, maximum=1.0)
        def brightness(images, numbers, strength):
            return images * (1 + strength * (2 * numbers[:, :, tf.newaxis, tf.newaxis] - 1))

    Args:
      name: name of the transform, a Python identifier.
      numbers: number of random numbers that the transform needs for each example.
      default: strength if the option gives none.
      maximum: largest strength allowed, above 0.

    Raises:
      ValueError: when the name is already in use or is not a Python identifier.
    """
    check_new("a transform", name, names())

    def add(transform: Transform) -> Transform:
        image_transforms[name] = Registered(transform, numbers, default, maximum)
        return transform

    return add


def register_pair(
    name: str | PairTransform | None = None,
    *,
    numbers: int = 1,
    default: float = 1.0,
    maximum: float = math.inf,
) -> Any:
    """Registers a transform of pairs, as a decorator, for `--augment=NAME[:STRENGTH]`.

    A transform of pairs augments inputs and targets together. The decorated function takes decoded
    inputs and targets, nests of tensors [rows, ...] before scaling, random numbers, float32
    [rows, numbers] in [0, 1), and, if it has a fourth parameter, the strength. It returns inputs
    and targets of the same shapes and dtypes. Row i of the output may depend only on row i of the
    arguments (law L3 of docs/concepts/laws.md). Transforms of pairs are applied before those of
    images::

        @tl.augment
        def mirror(image, mask, numbers):
            mirrored = numbers[:, :, tf.newaxis, tf.newaxis] >= 0.5
            return [tf.where(mirrored, x[:, :, ::-1], x) for x in (image, mask)]

    The decorator can be used without arguments, as here, or with arguments.

    Args:
      name: name of the transform, a Python identifier; None: the name of the function.
      numbers: number of random numbers that the transform needs for each example.
      default: strength if the option gives none.
      maximum: largest strength allowed, above 0.

    Returns:
      The function, unchanged, if `name` is the function; else a decorator that returns it.

    Raises:
      ValueError: when the name is already in use or is not a Python identifier.
    """
    if callable(name):
        return register_pair()(name)

    def add(transform: Callable) -> Callable:
        of = name or transform.__name__
        check_new("a transform", of, names())
        takes_strength = len(inspect.signature(transform).parameters) > 3
        with_strength = transform if takes_strength else lambda x, y, u, _: transform(x, y, u)
        pair_transforms[of] = Registered(
            with_strength, numbers, default, maximum if takes_strength else 0.0
        )
        return transform

    return add
