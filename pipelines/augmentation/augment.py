"""Applies the transforms of `--augment`: a pure function of a batch and random numbers.

    augment = parse_augmentation("shift:2,rotation:10,mixup:0.2", (28, 28, 1))
    images, targets = augment(images, labels, numbers, classes=10)

Row i of the returned tensors depends only on row i of the tensors given, to the bit; with mixup,
also on row i + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pipelines.augmentation import lookup, registry
from pipelines.augmentation.resized_crop import ResizedCrop
from pipelines.augmentation.warp import NUMBERS, warp
from pipelines.preprocessing import Scale

FLIPS = {"horizontal": (2,), "vertical": (1,), "both": (2, 1)}  # axes of [rows, H, W, C]


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
        """Whether mixup is selected.

        Mixup blends each row with the next, so a call returns one row less than it is given.
        """
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

        Args:
          images: uint8 [rows, H, W, C]; or float32 if none of shift, rotation, zoom, shear and
            elastic is selected. If only transforms of pairs are selected, a nest of any tensors
            [rows, ...].
          labels: a nest of any tensors [rows, ...]; for mixup, class labels, int32 [rows].
          numbers: uniform random numbers in [0, 1), float32 [rows, self.numbers].
          classes: number of classes, which mixup needs.
          preprocess: scales the inputs. It is applied after transforms of pairs, flips and warps,
            which change pixels as stored, and before all other transforms. None: one uint8 tensor
            is divided by 255, and other inputs are not scaled.

        Returns:
          (inputs, targets). The inputs are preprocessed images, float32 [rows, H, W, C]; if only
          transforms of pairs are selected, they are what `preprocess` returns. The targets are
          `labels`, which transforms of pairs may have changed. With mixup, both have rows - 1 rows,
          and the targets are class distributions, float32 [rows - 1, classes].

        Raises:
          ValueError: when a transform of pairs changes a structure, shape or dtype.
        """
        counts = self._counts
        parts = tf.split(numbers, list(counts.values()), axis=1)
        uniform = dict(zip(counts, parts, strict=True))
        for name in (name for name in uniform if name in registry.pair_transforms):
            images, labels = _apply_pair(name, self.strengths[name], images, labels, uniform[name])
        if all(name in registry.pair_transforms for name in uniform):
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
            if name in registry.image_transforms:
                images = registry.image_transforms[name].transform(
                    images, uniform[name], self.strengths[name]
                )
        if "mixup" in uniform:
            quantiles = lookup.mixup_weight_quantiles(self.strengths["mixup"])
            weights = lookup.interpolate(quantiles, uniform["mixup"])
            return mixup(images, labels, weights, classes)
        return images, labels

    @property
    def _counts(self) -> dict[str, int]:
        """Number of random numbers per example by selected transform, in the order of columns."""
        flips = len(FLIPS[self.strengths["flip"]]) if "flip" in self.strengths else 0
        counts = {"flip": flips, **NUMBERS, "cutout": 2, "mixup": 1}
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
    """Mirrors image i along axis `axes[k]` (1: H, 2: W) if `numbers[i, k]` is at least 1/2.

    `images` is [rows, H, W, C] of any dtype; `numbers` are uniform random numbers in [0, 1),
    float32 [rows, len(axes)]. Returns images of the same shape and dtype.
    """
    for column, axis in enumerate(axes):
        mirrored = numbers[:, column, tf.newaxis, tf.newaxis, tf.newaxis] >= 0.5
        images = tf.where(mirrored, tf.reverse(images, [axis]), images)
    return images


def cutout(images: tf.Tensor, numbers: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the images with a square of `side` x `side` pixels of each set to zero.

    This is cutout (DeVries and Taylor 2017). `images` is float32 [rows, H, W, C]. `numbers`,
    float32 [rows, 2] in [0, 1), selects the row and the column of the square's centre, uniformly
    over the image's pixels, so the square may extend beyond the border. If `side` is even, the
    centre is the pixel below and to the right of the middle.
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
    [rows + 1, 1] in 1/2..1: a row of weight w becomes w * row + (1 - w) * next row. Returns the
    blended images, float32 [rows, H, W, C], and class distributions, float32 [rows, classes].
    """
    own = weights[:-1]

    def mix(rows: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        return own * rows[:-1] + (1 - own) * rows[1:]

    targets = mix(tf.one_hot(labels, classes), own)
    return mix(images, own[:, :, tf.newaxis, tf.newaxis]), targets
