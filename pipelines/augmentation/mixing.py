"""Mixing of each example with the next one: mixup and CutMix.

Each function is given one row more than it returns, because row i is mixed with row i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.augmentation import lookup

# Top, bottom, left and right edge of a box of each image, float32 [rows, 1], in pixels
Edges = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]

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
    own: Any = None
    if "mixup" in alphas:
        quantiles = lookup.mixup_weight_quantiles(alphas["mixup"])
        own = lookup.interpolate(quantiles, numbers["mixup"][:-1])
    if "cutmix" in alphas:
        edges, kept = box(alphas["cutmix"], numbers["cutmix"][:-1], *images.shape[1:3])
        if own is None:
            return inside_box(images[:-1], edges, images[1:]), _blend(one_hot, kept)
        # A row of mixup has no box, and a row of CutMix a weight of 1 outside of it.
        cut = numbers["cutmix"][:-1, _CUTMIX:] >= 0.5
        own_edges = [tf.where(cut, edge, 0.0) for edge in edges]
        blended = _blend(images, tf.where(cut, 1.0, own)[:, :, tf.newaxis, tf.newaxis])
        images = inside_box(blended, own_edges, images[1:])
        return images, _blend(one_hot, tf.where(cut, kept, own))
    return _blend(images, own[:, :, tf.newaxis, tf.newaxis]), _blend(one_hot, own)


def _blend(rows: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """Returns own * row + (1 - own) * next row for each row except the last.

    Mixup is Zhang et al. 2018, "mixup: beyond empirical risk minimization", where `own`, in
    1/2..1, is max(l, 1 - l) of l ~ Beta(alpha, alpha).
    """
    return own * rows[:-1] + (1 - own) * rows[1:]


def box(alpha: float, numbers: tf.Tensor, height: int, width: int) -> tuple[Edges, tf.Tensor]:
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
      The edges of the boxes, within the images, and the share of the pixels that are outside of
      the box, float32 [rows, 1].
    """
    side = lookup.interpolate(lookup.cutmix_side_quantiles(alpha), numbers[:, :1])
    edges = []
    for size, number in ((height, numbers[:, 1:2]), (width, numbers[:, 2:3])):
        centre, half = tf.floor(number * size), tf.floor(side * (size / 2))
        edges += [tf.maximum(centre - half, 0), tf.minimum(centre + half, size)]
    top, bottom, left, right = edges
    area = (bottom - top) * (right - left)
    return (top, bottom, left, right), 1 - area * np.float32(1 / (height * width))


def inside_box(images: tf.Tensor, edges: Sequence[tf.Tensor], others: Any) -> tf.Tensor:
    """Returns the images with what is in a box of each replaced by the pixels of other images.

    Args:
      images: float32 [rows, H, W, C].
      edges: edges of the boxes: top, bottom, left and right, in pixels, float32 [rows, 1] each. A
        box has the pixels from top and left to before bottom and right, as far as they exist.
      others: images like `images`, or a number for all pixels.
    """
    _, height, width, channels = images.shape
    top, bottom, left, right = edges
    y = np.arange(height, dtype=np.float32)
    x = np.repeat(np.arange(width, dtype=np.float32), channels)  # of each number of a line
    inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)
    inside = inside_y[:, :, tf.newaxis] & inside_x[:, tf.newaxis, :]
    # Three axes: a choice whose condition is broadcast along the last axis takes twice as long.
    images, others = (
        tf.reshape(each, [-1, height, width * channels]) if isinstance(each, tf.Tensor) else each
        for each in (images, others)
    )
    return tf.reshape(tf.where(inside, others, images), [-1, height, width, channels])
