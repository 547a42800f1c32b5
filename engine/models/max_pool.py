"""Max pooling that XLA compiles, with a deterministic gradient.

Under op determinism, TensorFlow refuses to compile its own gradient of a max pool, which scatters.
Here, the choice of each window is found among strided slices of the images, one for each position
in the window, and each element of the images gathers from the windows that contain it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Pair = Sequence[int]  # of the vertical and the horizontal axis
Borders = tuple[Pair, Pair]  # numbers of rows above and below, of columns to the left and right


def max_pool(x: tf.Tensor, size: Pair, stride: Pair, padding: str | int = "VALID") -> tf.Tensor:
    """Returns the maximum of each window of images, `[rows, height, width, channels]`.

    Values are equal to those of TensorFlow's kernels MaxPool and MaxPoolGrad for CPUs: the gradient
    of a window goes to its first maximum in the order of rows, then columns; the gradients that an
    element gets from several windows are added in this order of the windows, and each sum is
    rounded to the dtype of `x`. (oneDNN's kernel of MaxPoolGrad chooses the same maxima, but adds
    the gradients of overlapping windows in another order.) A nan is chosen if it is the first
    element of a window. The maximum of elements that are all -inf is -inf; TensorFlow's kernels may
    give the lowest finite number.

    Args:
      x: images, floating, `[rows, height, width, channels]`; all sides but `rows` are static.
      size: height and width of the windows.
      stride: vertical and horizontal distance between the windows.
      padding: "VALID", "SAME", or the number of rows and columns by which the images are extended
        on each side, at most half of the size; what is outside the image is never chosen.
    """
    borders = _borders(x.shape[1:3], size, stride, padding)

    @tf.custom_gradient
    def pooled(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        maxima, chosen = _choices(x, size, stride, borders)
        return maxima, lambda upstream: _gathered(upstream, chosen, x.shape, size, stride, borders)

    return pooled(x)


def _borders(sides: Pair, size: Pair, stride: Pair, padding: str | int) -> Borders:
    """Returns the numbers of rows and columns by which `max_pool` extends images of `sides`."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    missing = [
        max((-(-side // step) - 1) * step + extent - side, 0)
        for side, extent, step in zip(sides, size, stride, strict=True)
    ]
    above, left = (count // 2 for count in missing)
    return (above, missing[0] - above), (left, missing[1] - left)


def _choices(
    x: tf.Tensor, size: Pair, stride: Pair, borders: Borders
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the maximum of each window, and its index in the window, int8 or int32.

    Indices count positions in the order of rows, then columns. The arguments are as in `max_pool`.
    """
    counts = [
        (side + sum(border) - extent) // step + 1
        for side, border, extent, step in zip(x.shape[1:3], borders, size, stride, strict=True)
    ]
    # The first row and the first column of each window that are inside the image.
    first_rows, first_columns = (
        np.maximum(border[0] - step * np.arange(count), 0)
        for border, step, count in zip(borders, stride, counts, strict=True)
    )
    if any(map(any, borders)):
        paddings = [[0, 0], *map(list, borders), [0, 0]]
        x = tf.pad(x, paddings, constant_values=tf.constant(-np.inf, x.dtype))
    indices = tf.int8 if size[0] * size[1] <= tf.int8.max else tf.int32
    best = x[:, : counts[0] * stride[0] : stride[0], : counts[1] * stride[1] : stride[1]]
    chosen = tf.zeros_like(best, indices)
    for row, column in list(itertools.product(range(size[0]), range(size[1])))[1:]:
        bottom, right = row + counts[0] * stride[0], column + counts[1] * stride[1]
        part = x[:, row : bottom : stride[0], column : right : stride[1]]
        better = best < part
        first = (first_rows == row)[:, np.newaxis] & (first_columns == column)
        if first.any():  # even if it is -inf, like the border, or nan
            better |= first[..., np.newaxis]
        best = tf.where(better, part, best)
        chosen = tf.where(better, tf.constant(row * size[1] + column, indices), chosen)
    return best, chosen


def _gathered(
    upstream: tf.Tensor,
    chosen: tf.Tensor,
    shape: Sequence[int],
    size: Pair,
    stride: Pair,
    borders: Borders,
) -> tf.Tensor:
    """Returns the gradient of images of `shape`, given that of the maxima.

    Row q * stride + r of the extended image is row r + m * stride of window q - m, for each m for
    which this is less than the size; the same holds for columns. So the windows are shifted by each
    m, repeated for each r, and added. XLA does all of it in one loop over the image.

    Args:
      upstream: gradient of the maxima.
      chosen: index in the window of each maximum.
      shape: shape of the images, without borders.
      size: as in `max_pool`.
      stride: as in `max_pool`.
      borders: result of `_borders`.
    """
    counts = upstream.shape[1:3]
    shifts = [-(-extent // step) for extent, step in zip(size, stride, strict=True)]
    periods = [count + shift - 1 for count, shift in zip(counts, shifts, strict=True)]
    zero, total = tf.zeros([], upstream.dtype), None
    # In the order of the windows: a later position in a window is in an earlier window.
    for shift in itertools.product(*(reversed(range(most)) for most in shifts)):
        rows, columns = (m * step + np.arange(step) for m, step in zip(shift, stride, strict=True))
        inside = (rows < size[0])[:, np.newaxis] & (columns < size[1])
        index = np.where(inside, rows[:, np.newaxis] * size[1] + columns, -1)
        index = index.astype(chosen.dtype.as_numpy_dtype)[:, np.newaxis, :, np.newaxis]
        around = [
            [m, period - count - m] for m, period, count in zip(shift, periods, counts, strict=True)
        ]
        windows, gradients = chosen, upstream
        if np.any(around):
            paddings = [[0, 0], *around, [0, 0]]
            windows = tf.pad(windows, paddings, constant_values=tf.constant(-2, windows.dtype))
            gradients = tf.pad(gradients, paddings)
        matches = windows[:, :, tf.newaxis, :, tf.newaxis] == index
        part = gradients[:, :, tf.newaxis, :, tf.newaxis]
        # Not a sum of sums, which TensorFlow's optimizer would add in another order, as an AddN.
        so_far = zero if total is None else total
        total = tf.where(matches, part if total is None else total + part, so_far)
    lengths = [period * step for period, step in zip(periods, stride, strict=True)]
    extended = tf.reshape(total, [-1, *lengths, shape[3]])
    (above, _), (left, _) = borders
    bottom, right = above + shape[1], left + shape[2]
    if bottom > lengths[0] or right > lengths[1]:  # rows or columns after the last window
        after = [[0, max(end - n, 0)] for end, n in zip((bottom, right), lengths, strict=True)]
        extended = tf.pad(extended, [[0, 0], *after, [0, 0]])
    return extended[:, above:bottom, left:right]
