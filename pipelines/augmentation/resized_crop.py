"""Random resized crop of training images, applied when they are decoded.

A crop needs the whole image at its stored size. The cache and the in-memory feed hold decoded
examples, all resized to one size. So of the feeds only the streaming feed, which decodes examples
in every epoch, crops.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from pipelines import order

TRIES = 10  # boxes drawn for a picture, of which the first that fits into it is taken


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Random resized crop of training images, as in torchvision.

    The crop is that of Szegedy et al. 2015, "Going deeper with convolutions". The area of the crop
    box, as a fraction of the image's area, is uniform in min_area..1. The box's width / height is
    log-uniform in 1 / max_aspect..max_aspect, and its position is uniform. `TRIES` boxes are
    computed together, and the first that fits into the image is taken. If none fits, the box is the
    largest one at the centre whose ratio of the sides is at most max_aspect.
    """

    min_area: float = 0.08
    max_aspect: float = 4 / 3

    @property
    def spec(self) -> tf.TensorSpec:
        """Spec of the random draws of one example, float64 [TRIES + 1, 2]."""
        return tf.TensorSpec([TRIES + 1, 2], tf.float64)

    def draws(self, seed: int, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Returns the random draws of examples, a pure function of seed, epoch and position.

        Args:
          seed: seed of the run, 0 or more.
          epochs: epoch of each example, int [k].
          positions: position of each example in the order of its epoch, int [k].

        Returns:
          float64 [k, TRIES + 1, 2]. Row i < TRIES of an example is (height, width) of a box, in an
          image of area 1. The last row is the position of the box, (down, right), each a fraction
          in [0, 1) of the possible offsets.

        Raises:
          ValueError: when the seed or an epoch is negative.
        """
        numbers = np.empty((len(positions), TRIES + 1, 2))
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            drawn = order.uniform(seed, int(epoch), positions[rows], numbers[0].size)
            numbers[rows] = drawn.reshape(-1, *numbers.shape[1:])
        area = self.min_area + (1 - self.min_area) * numbers[:, :-1, 0]
        root = np.exp(math.log(self.max_aspect) * (numbers[:, :-1, 1] - 0.5))  # of width / height
        side = np.sqrt(area)
        return np.concatenate([np.stack([side / root, side * root], 2), numbers[:, -1:]], 1)

    def box(self, draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Returns the crop box of an image: top, left, height and width in pixels, int32 [4].

        Args:
          draws: the random draws of the example, float64 [TRIES + 1, 2]; see the method `draws`.
          height: height of the image in pixels, an integer [].
          width: width of the image in pixels, an integer [].
        """
        size = tf.cast(tf.stack([height, width]), tf.float64)
        sides = tf.round(draws[:-1] * tf.sqrt(size[0] * size[1]))
        fits = tf.reduce_all((sides >= 1) & (sides <= size), axis=1)
        chosen = tf.reduce_min(tf.where(fits, tf.range(TRIES), TRIES))
        largest = tf.minimum(tf.maximum(tf.round(size[::-1] * self.max_aspect), 1), size)
        side = tf.concat([sides, largest[tf.newaxis]], 0)[chosen]
        place = tf.where(chosen < TRIES, draws[-1] * (size - side + 1), (size - side) / 2)
        return tf.cast(tf.concat([tf.floor(place), side], 0), tf.int32)

    def cut(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the crop of an image, [h, w, C] of any size, in the graph.

        `draws` is float64 [TRIES + 1, 2]; see the method `draws`.
        """
        height, width, _ = tf.unstack(tf.shape(image))
        top, left, rows, columns = tf.unstack(self.box(draws, height, width))
        return image[top : top + rows, left : left + columns]


def parsed(flag: str, text: str | None) -> ResizedCrop:
    """Returns the crop that `text`, MIN_AREA[:MAX_ASPECT], selects; the default crop for None.

    Raises:
      ValueError: when `text` is invalid or a number is out of range; `flag` begins the message.
    """
    try:
        numbers = [float(part) for part in text.split(":")] if text is not None else []
        crop = ResizedCrop(*numbers)
    except (ValueError, TypeError):
        raise ValueError(
            f"{flag}: give resized_crop:MIN_AREA:MAX_ASPECT, such as 0.3:1.5"
        ) from None
    if not 0 < crop.min_area <= 1:
        raise ValueError(f"{flag}: the smallest area must be above 0 and at most 1, of the picture")
    if not 1 <= crop.max_aspect <= 100:
        raise ValueError(f"{flag}: the largest ratio of the sides must be 1 to 100")
    return crop
