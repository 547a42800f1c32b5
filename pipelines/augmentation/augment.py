"""Applies the transforms of `--augment`: a pure function of a batch and random numbers.

    augment = parse_augmentation("shift:2,rotation:10,mixup:0.2", (28, 28, 1))
    images, targets = augment(images, labels, numbers, classes=10)

Row i of the returned tensors depends only on row i of the tensors given, to the bit; with mixup or
CutMix, also on row i + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pipelines.augmentation import color, mixing, randaugment, registry
from pipelines.augmentation.moves import FLIPS, move
from pipelines.augmentation.resized_crop import ResizedCrop
from pipelines.augmentation.warp import NUMBERS, warp
from pipelines.preprocessing import Scale


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Callable that augments a batch with the transforms that an `--augment` option selects."""

    strengths: Mapping[str, Any]  # strength of each selected transform; of flip: the direction
    crop: ResizedCrop | None = None  # done at decoding, see `with_crop`, and not by a call

    @property
    def numbers(self) -> int:
        """Number of uniform random numbers that one example needs."""
        return sum(self._counts.values())

    @property
    def mixes(self) -> bool:
        """Whether mixup or CutMix is selected.

        They mix each row with the next, so a call returns one row less than it is given.
        """
        return any(name in self.strengths for name in mixing.MIXING)

    @property
    def alternates(self) -> bool:
        """Whether images are mirrored in every other epoch, see `FLIPS`."""
        return self.strengths.get("flip") == "alternating"

    def __call__(
        self,
        images: Any,
        labels: Any,
        numbers: tf.Tensor,
        classes: int,
        preprocess: Callable[[Any], Any] | None = None,
        alternating: tf.Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Augments and preprocesses a batch in the graph.

        Args:
          images: uint8 [rows, H, W, C]; or float32 if none of randaugment, shift, rotation, zoom,
            shear, elastic and color_jitter is selected. If only transforms of pairs are selected, a
            nest of any tensors [rows, ...].
          labels: a nest of any tensors [rows, ...]; for mixup and CutMix, class labels, int32
            [rows].
          numbers: uniform random numbers in [0, 1), float32 [rows, self.numbers].
          classes: number of classes, which mixup and CutMix need.
          preprocess: scales the inputs. It is applied after transforms of pairs, crop, flips,
            randaugment, warps and color_jitter, which change pixels as stored, and before all other
            transforms. None: one uint8 tensor is divided by 255, and other inputs are not scaled.
          alternating: number of each example for the flip "alternating", float32 [rows] in [0, 1),
            that is on the other side of 1/2 in each next epoch.

        Returns:
          (inputs, targets). The inputs are preprocessed images, float32 [rows, H, W, C]; if only
          transforms of pairs are selected, they are what `preprocess` returns. The targets are
          `labels`, which transforms of pairs may have changed. With mixup or CutMix, both have
          rows - 1 rows, and the targets are class distributions, float32 [rows - 1, classes].

        Raises:
          ValueError: when a registered transform changes a structure, shape or dtype.
        """
        counts = self._counts
        parts = tf.split(numbers, list(counts.values()), axis=1)
        uniform = dict(zip(counts, parts, strict=True))
        if self.alternates:
            assert alternating is not None, "an alternating flip needs its numbers"
            uniform["flip"] = alternating[:, tf.newaxis]
        for name in (name for name in uniform if name in registry.pair_transforms):
            images, labels = _apply_pair(name, self.strengths[name], images, labels, uniform[name])
        if all(name in registry.pair_transforms for name in uniform):
            return (preprocess or _scale(images))(images), labels
        preprocess = preprocess or _scale(images)
        if "crop" in uniform or "flip" in uniform:
            axes = FLIPS[self.strengths["flip"]] if "flip" in uniform else ()
            images = move(
                images, self.strengths.get("crop"), uniform.get("crop"), axes, uniform.get("flip")
            )
        if "randaugment" in uniform:
            images = randaugment.randaugment(
                images, uniform["randaugment"], self.strengths["randaugment"]
            )
        warps = {name: self.strengths[name] for name in NUMBERS if name in self.strengths}
        images = warp(images, warps, uniform) if warps else tf.cast(images, tf.float32)
        if "color_jitter" in uniform:
            images = color.color_jitter(
                images, uniform["color_jitter"], self.strengths["color_jitter"]
            )
        images = preprocess(images)
        if "cutout" in uniform:
            images = cutout(images, uniform["cutout"], self.strengths["cutout"])
        for name in uniform:
            if name in registry.image_transforms:
                images = _apply_image(name, self.strengths[name], images, uniform[name])
        alphas = {name: self.strengths[name] for name in mixing.MIXING if name in uniform}
        if alphas:
            return mixing.mix(images, labels, alphas, uniform, classes)
        return images, labels

    @property
    def _counts(self) -> dict[str, int]:
        """Number of random numbers per example by selected transform, in the order of columns."""
        drawn = "flip" in self.strengths and not self.alternates
        flips = len(FLIPS[self.strengths["flip"]]) if drawn else 0
        mixed = tuple(name for name in mixing.MIXING if name in self.strengths)
        operations = getattr(self.strengths.get("randaugment"), "operations", 0)
        counts = {
            "crop": 2,
            "flip": flips,
            "randaugment": randaugment.NUMBERS * operations,
            **NUMBERS,
            "color_jitter": color.NUMBERS,
            "cutout": 2,
            **mixing.numbers_of(mixed),
        }
        counts |= {
            name: each.numbers
            for name, each in (
                *registry.image_transforms.items(),
                *registry.pair_transforms.items(),
            )
        }
        return {name: counts[name] for name in registry.names() if name in self.strengths}


def _scale(inputs: Any) -> Callable[[Any], Any]:
    """Returns the default preprocessing: divides one uint8 tensor by 255, keeps other inputs."""
    is_uint8 = not tf.nest.is_nested(inputs) and inputs.dtype == tf.uint8
    return Scale("unit" if is_uint8 else "none")


def _apply_pair(
    name: str, strength: float, inputs: Any, targets: Any, numbers: tf.Tensor
) -> tuple[Any, Any]:
    """Returns the inputs and targets that a registered transform of pairs returns for a batch.

    Raises:
      ValueError: when the transform changes a structure, shape or dtype.
    """
    result = registry.pair_transforms[name].transform(inputs, targets, numbers, strength)
    return _like(name, "inputs and targets", (inputs, targets), lambda: tuple(result))


def _apply_image(name: str, strength: float, images: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Returns the images that a registered transform returns for a batch, float32 [rows, H, W, C].

    Raises:
      ValueError: when the transform changes the shape or dtype.
    """
    result = registry.image_transforms[name].transform(images, numbers, strength)
    return _like(name, "images", images, lambda: result)


def _like(name: str, what: str, before: Any, result: Callable[[], Any]) -> Any:
    """Returns the result of the transform `name`, with the static shapes of what it was given.

    The graph does not know the shape of what, for example, `tf.py_function` returns: such a tensor
    is checked when the graph runs.

    Args:
      name: name of the transform.
      what: what the transform returns, for the error.
      before: nest of the tensors that the transform was given.
      result: returns the nest of the tensors that it returned.

    Raises:
      ValueError: when the nests differ in structure, a known shape or a dtype.
    """

    def like(before: tf.Tensor, after: Any) -> tf.Tensor:
        after = tf.convert_to_tensor(after, before.dtype)
        if not after.shape.is_compatible_with(before.shape):
            raise ValueError(f"{after.shape} instead of {before.shape}")
        return after if after.shape == before.shape else tf.ensure_shape(after, before.shape)

    try:
        return tf.nest.map_structure(like, before, result())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--augment={name}: has to return {what} of the shapes and dtypes that it gets: "
            f"{' '.join(str(error).split())[:160]}"
        ) from error


def cutout(images: tf.Tensor, numbers: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the images with a square of `side` x `side` pixels of each set to zero.

    This is cutout (DeVries and Taylor 2017). `images` is float32 [rows, H, W, C]. `numbers`,
    float32 [rows, 2] in [0, 1), selects the row and the column of the square's centre, uniformly
    over the image's pixels, so the square may extend beyond the border. If `side` is even, the
    centre is the pixel below and to the right of the middle.
    """
    height, width = images.shape[1:3]
    corner = tf.floor(numbers * [height, width]) - side // 2
    top, left = corner[:, :1], corner[:, 1:]
    return mixing.inside_box(images, (top, top + side, left, left + side), 0.0)
