"""Mixing of each example with the next one: mixup and CutMix.

Each function is given one row more than it returns, because row i is mixed with row i + 1.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipelines.augmentation import lookup

MIXING = ("mixup", "cutmix")  # names of the transforms that mix
_CUTMIX = 3  # random numbers of CutMix: of the area, and of the centre's row and column


def numbers_of(selected: tuple[str, ...]) -> dict[str, int]:
    """Returns the number of random numbers per example of each of the `selected` transforms.

    If both are selected, CutMix has one more, which chooses one of the two for the example.
    """
    counts = {"mixup": 1, "cutmix": _CUTMIX + (len(selected) == len(MIXING))}
    return {name: counts[name] for name in selected}


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    alphas: dict[str, float],
    numbers: dict[str, tf.Tensor],
    classes: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each row except the last with the next, by mixup, by CutMix or by one of the two.

    With both, a row is mixed by CutMix if its last random number of CutMix is at least 1/2.

    Args:
      images: float32 [rows + 1, H, W, C].
      labels: class labels, int32 [rows + 1].
      alphas: alpha of the Beta distribution of each selected transform, by name.
      numbers: random numbers in [0, 1) by name, float32 [rows + 1, n], n as in `numbers_of`.
      classes: number of classes.

    Returns:
      Images, float32 [rows, H, W, C], and class distributions, float32 [rows, classes].
    """
    one_hot = tf.one_hot(labels, classes)
    own = inside = None
    if "mixup" in alphas:
        quantiles = lookup.mixup_weight_quantiles(alphas["mixup"])
        own = lookup.interpolate(quantiles, numbers["mixup"][:-1])
    if "cutmix" in alphas:
        inside, kept = box(alphas["cutmix"], numbers["cutmix"][:-1], *images.shape[1:3])
        if own is None:
            return tf.where(inside, images[1:], images[:-1]), _blend(one_hot, kept)
        cut = numbers["cutmix"][:-1, _CUTMIX:] >= 0.5
        weights = tf.where(inside, 0.0, 1.0)
        weights = tf.where(cut[:, :, tf.newaxis, tf.newaxis], weights, _spread(own))
        return _blend(images, weights), _blend(one_hot, tf.where(cut, kept, own))
    return _blend(images, _spread(own)), _blend(one_hot, own)


def _spread(own: tf.Tensor) -> tf.Tensor:
    return own[:, :, tf.newaxis, tf.newaxis]


def _blend(rows: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """Returns own * row + (1 - own) * next row for each row except the last.

    Mixup is Zhang et al. 2018, "mixup: beyond empirical risk minimization", where `own`, in
    1/2..1, is max(l, 1 - l) of l ~ Beta(alpha, alpha).
    """
    return own * rows[:-1] + (1 - own) * rows[1:]


def box(
    alpha: float, numbers: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the box of each image in which CutMix shows the next image.

    CutMix is Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with
    localizable features". The box has the image's sides times sqrt(1 - l), l ~ Beta(alpha, alpha),
    rounded down to even numbers of pixels. Its centre is uniform over the pixels, so that the
    border may cut it; the weight of the targets is by the area that is left of it.

    Args:
      alpha: of the Beta distribution.
      numbers: random numbers in [0, 1), float32 [rows, 3 or more].
      height: of the images, in pixels.
      width: of the images, in pixels.

    Returns:
      Whether a pixel is in the box, bool [rows, height, width, 1], and the share of the pixels
      that are not, float32 [rows, 1].
    """
    side = lookup.interpolate(lookup.cutmix_side_quantiles(alpha), numbers[:, :1])
    ranges = []
    for size, number in ((height, numbers[:, 1:2]), (width, numbers[:, 2:3])):
        centre, half = tf.floor(number * size), tf.floor(side * (size / 2))
        ranges.append((tf.maximum(centre - half, 0), tf.minimum(centre + half, size)))
    y, x = (tf.range(size, dtype=tf.float32) for size in (height, width))
    (top, bottom), (left, right) = ranges
    inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    inside = inside_y[:, :, tf.newaxis, tf.newaxis] & inside_x[:, tf.newaxis, :, tf.newaxis]
    area = (bottom - top) * (right - left)
    return inside, 1 - area * np.float32(1 / (height * width))
