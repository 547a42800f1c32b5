"""Functions of one uniform number, tabulated.

TensorFlow's kernels for sin, pow and their like round the last few rows of a batch otherwise than
the rest: vectors of numbers take one routine, the remainder another. What is looked up and
interpolated with a product and a sum is the same bits in any row of any batch.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

CELLS = 4096  # a power of two: numbers * CELLS is exact


def uniform_grid() -> np.ndarray:
    """Where a table holds values: 0, 1 / CELLS, ... 1, float64 [CELLS + 1]."""
    return np.arange(CELLS + 1) / CELLS


def look_up(table: np.ndarray, numbers: tf.Tensor) -> tf.Tensor:
    """Interpolates linearly; exact on the grid.

    Args:
      table: [CELLS + 1], a function's values on uniform_grid().
      numbers: any shape, in [0, 1), of the table's dtype.

    Returns:
      The function's values, of the shape and dtype of `numbers`.
    """
    place = numbers * CELLS
    cell = tf.floor(place)
    index = tf.cast(cell, tf.int32)
    low, high = tf.gather(table[:-1], index), tf.gather(table[1:], index)
    return low + (place - cell) * (high - low)


def larger_beta(alpha: float) -> np.ndarray:
    """The quantile function of max(l, 1 - l) for l ~ Beta(alpha, alpha), as a table.

    Interpolated, it has the right value at every CELLS-th quantile and rises between them, so the
    distribution function is nowhere off by more than 1 / CELLS = 0.00024.

    In z = log(l / (1 - l)) the density is (l (1 - l)) ** alpha up to a factor, which unlike that
    of l is smooth and bounded for every alpha; its integral is inverted.
    """
    alpha = max(alpha, 1e-6)  # below, all but one draw in 30,000 are 1 in float32 as it is
    # From z = 0, where l = 1/2, to where no more than exp(-40) of the density is left. The points
    # are dense at 0, because a small alpha has a long tail and everything else close to 0.
    z = (40 / alpha + 2 * np.log(2)) * np.linspace(0, 1, (1 << 16) + 1) ** 2
    density = np.exp(-alpha * (z + 2 * np.log1p(np.exp(-z)) - 2 * np.log(2)))
    mass = np.concatenate([[0], np.cumsum(np.diff(z) * (density[1:] + density[:-1]) / 2)])
    quantiles = np.interp(uniform_grid(), mass / mass[-1], z)
    return (1 / (1 + np.exp(-quantiles))).astype(np.float32)
