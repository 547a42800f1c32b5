"""Views of inputs for `--evaluation_views`: the built-in ones, a user's, and the parser.

A view is a function of a model's inputs that returns changed inputs of the same shapes and dtypes,
such as mirrored images. Evaluation averages a model's outputs over views, which is also called
test-time augmentation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from pipelines.augmentation.checks import check_new, choices, number_of
from pipelines.augmentation.moves import Crop, source_places

if TYPE_CHECKING:
    from pipelines.source import Source

View = Callable[[Any], Any]  # inputs, a nest [rows, ...], after preprocessing -> changed inputs


class WeightedView(NamedTuple):
    """A view and its weight in the mean of the outputs; the weights of all views sum to 1."""

    weight: float
    view: View


class _Registered(NamedTuple):
    """A name of `--evaluation_views`: its views by strength, and the strengths that it takes."""

    views: Callable[[float], tuple[View, ...]]
    default: float = 0.0  # strength if the option gives none
    maximum: float = 0.0  # largest strength; 0: the name takes none


def _flip(_: float) -> tuple[View, ...]:
    # Not images[:, :, ::-1], which takes several times as long on a CPU.
    return (lambda images: tf.reverse(images, [2]),)


def _shift(pixels: float) -> tuple[View, ...]:
    return tuple(_cropped(int(pixels), offset) for offset in (0, 2 * int(pixels)))


def _cropped(pixels: int, offset: int) -> View:
    """Returns a view: images, padded by `pixels` of reflection, from row and column `offset` on."""

    def cropped(images: tf.Tensor) -> tf.Tensor:
        for axis in (1, 2):
            # One place for each pixel. In int64: a GPU computes int32 on the host.
            table = source_places(images.shape[axis], Crop(pixels), flips=False)[offset]
            images = tf.gather(images, tf.constant(table), axis=axis)
        return images

    return cropped


# In the order in which they apply: with both, the shifted images are mirrored.
_BUILT_IN = {
    "shift": _Registered(_shift, 1.0, math.inf),
    "flip": _Registered(_flip),
}
_registered: dict[str, _Registered] = {}


def registered_views() -> tuple[str, ...]:
    """Returns the names of the views that `register_view` has added."""
    return tuple(_registered)


def register_view(
    name: str | Callable | None = None, *, default: float = 1.0, maximum: float = math.inf
) -> Any:
    """Registers a view of a model's inputs, as a decorator, for `--evaluation_views=NAME[:NUMBER]`.

    The decorated function takes the inputs of the model, a nest of tensors [rows, ...] after the
    scaling of `--scale`, and, if it has a second parameter, the number. It returns inputs of the
    same shapes and dtypes, without random numbers. Row i of the output may depend only on row i of
    the inputs (law L8 of docs/concepts/laws.md). The outputs of the model for the view and for the
    inputs as they are count half each::

        @tl.view
        def upside_down(images):
            return images[:, ::-1]

    The decorator can be used without arguments, as here, or with arguments.

    Args:
      name: name of the view, a Python identifier; None: the name of the function.
      default: number if the option gives none.
      maximum: largest number allowed, above 0.

    Returns:
      The function, unchanged, if `name` is the function; else a decorator that returns it.

    Raises:
      ValueError: when the name is already in use or is not a Python identifier.
    """
    if callable(name):
        return register_view()(name)

    def add(view: Callable) -> Callable:
        of = name or view.__name__
        check_new("a view", of, _BUILT_IN | _registered)
        takes_number = len(inspect.signature(view).parameters) > 1

        def views(strength: float) -> tuple[View, ...]:
            def one(inputs: Any) -> Any:
                return _alike(of, inputs, view(inputs, strength) if takes_number else view(inputs))

            return (one,)

        numbers = (default, maximum) if takes_number else (0.0, 0.0)
        _registered[of] = _Registered(views, *numbers)
        return view

    return add


def _alike(name: str, inputs: Any, changed: Any) -> Any:
    """Returns the inputs that a registered view returned, as tensors.

    Raises:
      ValueError: when the structure, a shape or a dtype is not that of `inputs`.
    """

    def like(before: tf.Tensor, after: Any) -> tf.Tensor:
        after = tf.convert_to_tensor(after, before.dtype)
        if not after.shape.is_compatible_with(before.shape):
            raise ValueError(f"{after.shape} instead of {before.shape}")
        return after

    try:
        return tf.nest.map_structure(like, inputs, changed)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--evaluation_views={name}: has to return inputs of the shapes and dtypes that it "
            f"gets: {' '.join(str(error).split())[:160]}"
        ) from error


def views_of(spec: str, source: Source) -> tuple[WeightedView, ...]:
    """Returns the views that `--evaluation_views` selects for a data set, with their weights.

    Each name halves the weight of the views so far, and gives the other half to its own views of
    each of them, in equal parts: a mirror image for `flip`, and for `shift:N` two, of which each is
    cut from the image, padded by N pixels of reflection, at the upper left and at the lower right.
    So `flip,shift:N` are the six views of Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single
    GPU", and the image itself counts a quarter.

    Args:
      spec: value of `--evaluation_views`: `name` or `name:number` for each name, separated by
        commas, in any order; the names apply in the order shift, flip, registered ones.
      source: data set.

    Returns:
      The views, of which the first is the identity; () if `spec` is empty.

    Raises:
      ValueError: when `spec` is invalid or does not apply to the data set.
    """
    known = _BUILT_IN | _registered
    strengths: dict[str, float] = {}
    for item in filter(None, (each.strip() for each in spec.split(","))):
        name, colon, number = (part.strip() for part in item.partition(":"))
        flag = f"--evaluation_views={item}"
        if name not in known:
            raise ValueError(f"{flag}: the views are {choices(name, known)}")
        if name in strengths:
            raise ValueError(f"{flag}: {name} is listed twice")
        if name in _BUILT_IN:
            _check_images(flag, name, source)
        strengths[name] = _strength(flag, name, number if colon else None, source)
    selected = [WeightedView(1.0, lambda inputs: inputs)]
    for name in (each for each in known if each in strengths):
        views = known[name].views(strengths[name])
        selected = [
            *(WeightedView(weight / 2, view) for weight, view in selected),
            *(
                WeightedView(weight / 2 / len(views), _composed(view, own))
                for own in views
                for weight, view in selected
            ),
        ]
    return tuple(selected) if strengths else ()


def _composed(first: View, second: View) -> View:
    return lambda inputs: second(first(inputs))


def _check_images(flag: str, name: str, source: Source) -> None:
    """Raises ValueError if a data set has no images, or if its targets would have to move too."""
    if not source.has_images:
        raise ValueError(f"{flag}: {name} is of images, and the inputs of {source.name} are none")
    if any(leaf.shape.rank > 1 for leaf in tf.nest.flatten(source.targets)):
        raise ValueError(
            f"{flag}: {name} moves the pixels of images, and the targets of {source.name} would "
            "have to move too: leave it out"
        )


def _strength(flag: str, name: str, text: str | None, source: Source) -> float:
    """Returns the number after the name of a view, or its default; ValueError if it is invalid."""
    _, default, maximum = (_BUILT_IN | _registered)[name]
    if not maximum:
        if text is not None:
            raise ValueError(f"{flag}: {name} takes no number; give {name}")
        return default
    number = number_of(flag, name, text, default)
    if name == "shift":
        side = min(source.image_shape[:2])
        if number not in range(1, side):
            raise ValueError(
                f"{flag}: must be 1 to {side - 1} whole pixels, the image's shorter side being "
                f"{side}"
            )
    if not 0 < number <= maximum or math.isinf(number):
        raise ValueError(f"{flag}: must be a finite number above 0, at most {maximum:g}")
    return number
