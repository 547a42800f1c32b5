"""Lookup tables of functions of a uniform random number.

TensorFlow's kernels for sin, pow and the like round the last few rows of a batch differently from
the rest. A lookup with linear interpolation returns the same bits in any row of any batch.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

CELLS = 4096  # a power of two: numbers * CELLS is exact


def uniform_grid() -> np.ndarray:
    """Returns the grid points of a lookup table: 0, 1 / CELLS, ..., 1, float64 [CELLS + 1]."""
    return np.arange(CELLS + 1) / CELLS


def interpolate(table: np.ndarray, numbers: tf.Tensor) -> tf.Tensor:
    """Returns a function's values at `numbers`, interpolated linearly in a lookup table.

    Args:
      table: values of the function on `uniform_grid()`, float [CELLS + 1].
      numbers: any shape, in [0, 1), of the table's dtype.
    """
    position = numbers * CELLS
    cell = tf.floor(position)
    index = tf.cast(cell, tf.int32)
    low, high = tf.gather(table[:-1], index), tf.gather(table[1:], index)
    return low + (position - cell) * (high - low)


def mixup_weight_quantiles(alpha: float) -> np.ndarray:
    """Returns a lookup table of the quantiles of max(l, 1 - l) for l ~ Beta(alpha, alpha).

    The table is float32 [CELLS + 1]; the error of the cumulative distribution is at most 1 / CELLS.
    """
    return _sigmoid(_logit_quantiles(alpha)).astype(np.float32)


def cutmix_side_quantiles(alpha: float) -> np.ndarray:
    """Returns a lookup table of sqrt(1 - l), where l is a quantile of Beta(alpha, alpha).

    The table is float32 [CELLS + 1], from 1 for the smallest l to 0 for the largest.
    """
    above = _logit_quantiles(alpha)[::2]  # of the upper half of the distribution, l above 1/2
    side = np.sqrt(_sigmoid(np.concatenate([above[::-1], -above[1:]])))
    return np.where(side < 1e-9, 0, side).astype(np.float32)  # no denormal numbers


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _logit_quantiles(alpha: float) -> np.ndarray:
    """Returns the quantiles of |log(l / (1 - l))| for l ~ Beta(alpha, alpha) on `uniform_grid()`.

    The density of z = log(l / (1 - l)) is proportional to (l (1 - l)) ** alpha. Unlike that of l,
    it is smooth and bounded for every alpha; its integral is inverted.
    """
    alpha = max(alpha, 1e-6)  # below this, all but one weight in 30,000 are 1 in float32
    # From z = 0, where l = 1/2, to where at most exp(-40) of the density is left. The points are
    # dense at 0, because a small alpha has a long tail and everything else close to 0.
    z = (40 / alpha + 2 * np.log(2)) * np.linspace(0, 1, (1 << 16) + 1) ** 2
    density = np.exp(-alpha * (z + 2 * np.log1p(np.exp(-z)) - 2 * np.log(2)))
    mass = np.concatenate([[0], np.cumsum(np.diff(z) * (density[1:] + density[:-1]) / 2)])
    return np.interp(uniform_grid(), mass / mass[-1], z)
