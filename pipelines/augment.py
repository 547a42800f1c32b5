"""Image augmentation: converts `--augment` to a pure function of images and random numbers.

    augment = parse_augmentation("shift:2,rotation:10,mixup:0.2", (28, 28, 1))
    images, targets = augment(images, labels, numbers, classes=10)

Row i of the returned tensors is bitwise determined by row i of the inputs; with mixup, also by row
i + 1.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from pipelines import nests, resized_crop, table
from pipelines.preprocessing import Scale
from pipelines.resized_crop import ResizedCrop
from pipelines.source import Source
from pipelines.warp import MAX_SIDE, NUMBERS, warp

FLIPS = {"horizontal": (2,), "vertical": (1,), "both": (2, 1)}  # axes of [rows, H, W, C]
# (images float32 [rows, H, W, C], random numbers float32 [rows, n] in [0, 1), strength) -> images
Transform = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]


# (inputs, targets, random numbers float32 [rows, n] in [0, 1), strength) -> (inputs, targets)
PairTransform = Callable[[Any, Any, tf.Tensor, float], tuple[Any, Any]]


class _Registered(NamedTuple):
    transform: Callable[..., Any]  # a Transform or PairTransform
    numbers: int
    default: float
    maximum: float


_registered: dict[str, _Registered] = {}
_pairs: dict[str, _Registered] = {}


def names() -> tuple[str, ...]:
    """Returns all transforms' names, in the order of application and of random-number columns."""
    return ("resized_crop", *_pairs, "flip", *NUMBERS, "cutout", *_registered, "mixup")


def registered_names() -> tuple[str, ...]:
    """Returns the names of the transforms that `register` has added."""
    return (*_pairs, *_registered)


def register(
    name: str, *, numbers: int, default: float, maximum: float
) -> Callable[[Transform], Transform]:
    """Returns a decorator that registers a transform for `--augment=NAME[:STRENGTH]`.

    The decorated function takes images, float32 [rows, H, W, C] in 0..1, random numbers, float32
    [rows, numbers] in [0, 1), and the strength, and returns images of the same shape. Row i of the
    output may depend only on row i of the inputs (law L3 of docs/concepts/laws.md). The transform
    is applied after cutout and before mixup::

        @register("brightness", numbers=1, default=0.2, maximum=1.0)
        def brightness(images, numbers, strength):
            return images * (1 + strength * (2 * numbers[:, :, tf.newaxis, tf.newaxis] - 1))

    `default` is the strength if the option gives none, `maximum`, above 0, the largest allowed.

    Raises:
      ValueError: when the name is already in use or is not a Python identifier.
    """
    _check_new(name)

    def add(transform: Transform) -> Transform:
        _registered[name] = _Registered(transform, numbers, default, maximum)
        return transform

    return add


def register_pair(
    name: str | PairTransform | None = None,
    *,
    numbers: int = 1,
    default: float = 1.0,
    maximum: float = math.inf,
) -> Any:
    """Registers a function that augments inputs and targets together, for `--augment=NAME`.

    The decorated function takes decoded inputs and targets, nests of tensors [rows, ...] before
    scaling, random numbers, float32 [rows, numbers] in [0, 1), and, if it has a fourth parameter,
    the strength. It returns inputs and targets of the same shapes and dtypes. Row i of the output
    may depend only on row i of the inputs (law L3 of docs/concepts/laws.md). Transforms of pairs
    are applied before those of images::

        @tl.augment
        def mirror(image, mask, numbers):
            mirrored = numbers[:, :, tf.newaxis, tf.newaxis] >= 0.5
            return [tf.where(mirrored, x[:, :, ::-1], x) for x in (image, mask)]

    The decorator also takes arguments: `name`, by default the name of the function; `default`, the
    strength if the option gives none; and `maximum`, the largest strength allowed.

    Raises:
      ValueError: when the name is already in use or is not a Python identifier.
    """
    if callable(name):
        return register_pair()(name)

    def add(transform: Callable) -> Callable:
        of = name or transform.__name__
        _check_new(of)
        takes_strength = len(inspect.signature(transform).parameters) > 3
        with_strength = transform if takes_strength else lambda x, y, u, _: transform(x, y, u)
        _pairs[of] = _Registered(with_strength, numbers, default, maximum)
        return transform

    return add


def _check_new(name: str) -> None:
    """Raises ValueError if `name` is not a Python identifier or already names a transform."""
    if not name.isidentifier():
        raise ValueError(f"the name of a transform must be a Python identifier, got {name!r}")
    if name in names():
        raise ValueError(f"a transform named {name!r} is registered already; choose another name")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The transforms of an `--augment` option, as a callable that augments a batch."""

    strengths: Mapping[str, Any]  # strength of each selected transform; of flip: the direction
    crop: ResizedCrop | None = None  # done at decoding, see `with_crop`, and not by a call

    @property
    def numbers(self) -> int:
        """Number of uniform random numbers that one example needs."""
        return sum(self._counts.values())

    @property
    def mixes(self) -> bool:
        """Whether mixup is enabled: each row is blended with the next, so a call drops the last."""
        return "mixup" in self.strengths

    def __call__(
        self,
        images: Any,
        labels: Any,
        numbers: tf.Tensor,
        classes: int,
        preprocess: Callable[[Any], Any] | None = None,
    ) -> tuple[Any, Any]:
        """Augments and preprocesses a batch in the graph.

        If only transforms of pairs are selected, inputs and targets are nests of any tensors.
        Otherwise they are images, uint8 [rows, H, W, C] (or float32, if `warp` is not used), and
        labels, int32 [rows]. `numbers` are uniform random numbers, float32 [rows, self.numbers] in
        [0, 1). `preprocess` scales images after flips and warps, which change pixels as stored;
        None: uint8 images are divided by 255. Returns float32 images and targets: the labels, int32
        [rows]. With mixup, returns rows - 1 images and class distributions, float32 [rows - 1,
        classes].
        """
        counts = self._counts
        parts = tf.split(numbers, list(counts.values()), axis=1)
        uniform = dict(zip(counts, parts, strict=True))
        for name in (name for name in uniform if name in _pairs):
            images, labels = _apply_pair(name, self.strengths[name], images, labels, uniform[name])
        if all(name in _pairs for name in uniform):
            return (preprocess or _scale(images))(images), labels
        if "flip" in uniform:
            images = flip(images, uniform["flip"], FLIPS[self.strengths["flip"]])
        preprocess = preprocess or _scale(images)
        warps = {name: self.strengths[name] for name in NUMBERS if name in self.strengths}
        images = warp(images, warps, uniform) if warps else tf.cast(images, tf.float32)
        images = preprocess(images)
        if "cutout" in uniform:
            images = cutout(images, uniform["cutout"], self.strengths["cutout"])
        for name in uniform:
            if name in _registered:
                images = _registered[name].transform(images, uniform[name], self.strengths[name])
        if "mixup" in uniform:
            quantiles = table.mixup_weight_quantiles(self.strengths["mixup"])
            weights = table.interpolate(quantiles, uniform["mixup"])
            return mixup(images, labels, weights, classes)
        return images, labels

    @property
    def _counts(self) -> dict[str, int]:
        """Number of random numbers per image by selected transform, in order of application."""
        flips = len(FLIPS[self.strengths["flip"]]) if "flip" in self.strengths else 0
        counts = {"flip": flips, **NUMBERS, "cutout": 2, "mixup": 1}
        counts |= {name: each.numbers for name, each in (*_registered.items(), *_pairs.items())}
        return {name: counts[name] for name in names() if name in self.strengths}


def _scale(inputs: Any) -> Callable[[Any], Any]:
    """Returns the default preprocessing, which divides uint8 images by 255, and only these."""
    is_uint8 = not tf.nest.is_nested(inputs) and inputs.dtype == tf.uint8
    return Scale("unit" if is_uint8 else "none")


def _apply_pair(
    name: str, strength: float, inputs: Any, targets: Any, numbers: tf.Tensor
) -> tuple[Any, Any]:
    """Applies a transform of pairs; ValueError if it changes structures or shapes."""
    result = _pairs[name].transform(inputs, targets, numbers, strength)

    def like(before: tf.Tensor, after: Any) -> tf.Tensor:
        after = tf.convert_to_tensor(after, before.dtype)
        if after.shape != before.shape:
            raise ValueError(f"{after.shape} instead of {before.shape}")
        return after

    try:
        result = tf.nest.map_structure(like, (inputs, targets), tuple(result))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--augment={name}: has to return inputs and targets of the shapes and dtypes that it "
            f"gets: {' '.join(str(error).split())[:160]}"
        ) from error
    return result[0], result[1]


def flip(images: tf.Tensor, numbers: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Mirrors images along axis `axes[k]` (1: H, 2: W) where numbers[:, k] in [0, 1) is >= 1/2."""
    for column, axis in enumerate(axes):
        mirrored = numbers[:, column, tf.newaxis, tf.newaxis, tf.newaxis] >= 0.5
        images = tf.where(mirrored, tf.reverse(images, [axis]), images)
    return images


def cutout(images: tf.Tensor, numbers: tf.Tensor, side: int) -> tf.Tensor:
    """Sets a square of `side` x `side` pixels to zero in each image (DeVries and Taylor 2017).

    `numbers`, [rows, 2] in [0, 1), select the row and column of its centre, uniformly over the
    image's pixels, so the square may extend beyond the border. If `side` is even, the centre is the
    pixel below and to the right of the middle.
    """
    height, width = images.shape[1:3]
    corner = tf.floor(numbers * [height, width]) - side // 2
    y = tf.range(height, dtype=tf.float32) - corner[:, :1]
    x = tf.range(width, dtype=tf.float32) - corner[:, 1:]
    inside_y, inside_x = (y >= 0) & (y < side), (x >= 0) & (x < side)
    inside = inside_y[:, :, tf.newaxis, tf.newaxis] & inside_x[:, tf.newaxis, :, tf.newaxis]
    return tf.where(inside, 0.0, images)


def mixup(
    images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each row except the last with the next row (mixup, Zhang et al. 2018).

    `images` is float32 [rows + 1, H, W, C], `labels` int32 [rows + 1] and `weights` float32
    [rows + 1, 1] in 1/2..1: w of a row gives w * row + (1 - w) * next row. Returns images, float32
    [rows, H, W, C], and targets, class distributions, float32 [rows, classes].
    """
    own = weights[:-1]

    def mix(rows: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        return own * rows[:-1] + (1 - own) * rows[1:]

    targets = mix(tf.one_hot(labels, classes), own)
    return mix(images, own[:, :, tf.newaxis, tf.newaxis]), targets


def augmentation_of(spec: str, source: Source) -> Augmentation | None:
    """Returns what `--augment` does to batches of a source's examples; None if it is nothing.

    Raises:
      ValueError: as `parse_augmentation`; when transforms of images cannot apply to the source.
    """
    parsed = _of_source(spec, source)
    assert parsed is None or parsed.crop == source.crop, "a source is to be opened by `with_crop`"
    return parsed if parsed and parsed.strengths else None


def with_crop(source: Source, spec: str) -> Source:
    """Returns the source with the random crop at decoding that `--augment` selects, if it does.

    Raises:
      ValueError: as `augmentation_of`.
    """
    parsed = _of_source(spec, source)
    return dataclasses.replace(source, crop=parsed.crop) if parsed else source


def _of_source(spec: str, source: Source) -> Augmentation | None:
    """Returns the transforms of `--augment`; ValueError if one cannot apply to the source."""
    shape = source.image_shape if source.has_images else None
    parsed = parse_augmentation(spec, shape, source.dtype if shape else "")
    if parsed is None:
        return None
    if parsed.mixes and not source.classes:
        raise ValueError(f"--augment={spec}: mixup mixes class labels, and {source.name} has none")
    moving = [name for name in parsed.strengths if name in ("flip", *NUMBERS)]
    moving += ["resized_crop"] * (parsed.crop is not None)
    if moving and any(leaf.shape.rank > 1 for leaf in tf.nest.flatten(source.targets)):
        raise ValueError(
            f"--augment={spec}: {moving[0]} moves the pixels of images and not the targets, "
            f"{nests.described(source.targets)}: register a function of both with tl.augment"
        )
    images = [name for name in parsed.strengths if name not in _pairs]
    if images and source.dtype == "uint8" and "" not in source.preprocess.scales:
        raise ValueError(
            f"--augment={spec}: {images[0]} gives pixels that are no integers: give --scale=unit "
            "or standardize"
        )
    return parsed


def parse_augmentation(
    spec: str, image_shape: tuple[int, int, int] | None, dtype: str = "uint8"
) -> Augmentation | None:
    """Converts the value of `--augment` to a function that augments batches; None if it is empty.

    `spec` lists `name` or `name:strength`, separated by commas, in any order; `image_shape` is
    (height, width, channels), None for inputs that are no images, which only transforms added by
    `register_pair` apply to. Besides these and those added by `register`, there are these, with the
    default strengths for images of 28 x 28 (those in pixels scale with the shorter side):

      flip: horizontal (default), vertical or both; each with probability 1/2.
      shift: maximum along each axis in pixels, whole or fractional; 2.
      rotation: maximum in either direction in degrees; 10.
      zoom: scales by a factor between 1 - strength and 1 + strength; 0.1.
      shear: maximum horizontal shift in pixels per pixel above or below the centre; 0.1.
      elastic: maximum distortion along each axis in pixels; 3.
      cutout: side of the square that is set to zero, in whole pixels; 8.
      mixup: alpha of the Beta distribution; a larger alpha mixes more; 0.2.
      resized_crop: smallest area of the crop, a fraction of the picture's, and after another colon
        the largest ratio of its sides; 0.08:1.3333. See `ResizedCrop`.

    Raises:
      ValueError: when `spec` is invalid or not possible for these images; says what is allowed.
    """
    strengths: dict[str, Any] = {}
    for item in spec.split(",") if spec.strip() else ():
        name, colon, strength = (part.strip() for part in item.partition(":"))
        flag = f"--augment={item.strip()}"
        if name not in names():
            raise ValueError(f"{flag}: the transforms are {_choices(name, names())}")
        if name in strengths:
            raise ValueError(f"{flag}: {name} is listed twice")
        strengths[name] = _strength(flag, name, strength if colon else None, image_shape)
    if not strengths:
        return None
    crop = strengths.pop("resized_crop", None)
    if image_shape is None:
        foreign = ["resized_crop"] * (crop is not None)
        if foreign := [*foreign, *(name for name in strengths if name not in _pairs)]:
            raise ValueError(
                f"--augment={spec}: {foreign[0]} is of images, and the inputs are no images"
            )
        return Augmentation(strengths)
    if warps := [name for name in strengths if name in NUMBERS and dtype != "uint8"]:
        raise ValueError(f"--augment={spec}: {warps[0]} is of uint8 images, and these are {dtype}")
    height, width, _ = image_shape
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"--augment={spec}: images are {height} x {width} pixels; at most {MAX_SIDE} a side"
        )
    return Augmentation(strengths, crop)


def _strength(
    flag: str, name: str, text: str | None, image_shape: tuple[int, int, int] | None
) -> Any:
    if name == "resized_crop":
        return resized_crop.parsed(flag, text)
    if name == "flip":
        text = "horizontal" if text is None else text
        if text not in FLIPS:
            raise ValueError(f"{flag}: flips are {_choices(text, FLIPS)}")
        return text
    side = min(image_shape[:2]) if image_shape else 14
    pixels = f"pixels, the image's shorter side being {side}"
    default, maximum, allowed = {
        "shift": (side / 14, math.nextafter(side, 0), f"below {side} {pixels}"),
        "rotation": (10.0, 180.0, "at most 180 degrees"),
        "zoom": (0.1, 0.99, "at most 0.99"),
        "shear": (0.1, 1.0, "at most 1"),
        "elastic": (side * 3 / 28, side / 4, f"at most {side / 4:g} {pixels}"),
        "cutout": (max(1, round(side * 2 / 7)), side - 1, f"at most {side - 1} {pixels}"),
        "mixup": (0.2, 100.0, "at most 100"),
        **{
            registered: (each.default, each.maximum, f"at most {each.maximum:g}")
            for registered, each in (*_registered.items(), *_pairs.items())
        },
    }[name]
    try:
        number = default if text is None else float(text)
    except ValueError:
        raise ValueError(f"{flag}: {text!r} is not a number; give {name}:{default:g}") from None
    if not math.isfinite(number):
        raise ValueError(f"{flag}: must be a finite number")
    if number <= 0:
        raise ValueError(f"{flag}: must be above 0; to go without, leave {name} out")
    if number > maximum:
        raise ValueError(f"{flag}: must be {allowed}")
    if name == "cutout" and number != int(number):
        raise ValueError(f"{flag}: must be a whole number of pixels")
    return int(number) if name == "cutout" else number


def _choices(value: str, known: Iterable[str]) -> str:
    """Formats the known names for an error message, and suggests one that is close to `value`."""
    close = difflib.get_close_matches(value, known, n=1)
    return ", ".join(known) + (f"; did you mean {close[0]!r}?" if close else "")
