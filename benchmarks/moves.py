"""Crops and flips of given numbers, by NumPy alone, for peers that augment as the engine does."""

from __future__ import annotations

import numpy as np


def moved(images: np.ndarray, moves: np.ndarray, padding: int) -> np.ndarray:
    """Pads images with zeros, cuts out windows of their size, and mirrors some of them.

    Args:
      images: uint8 [rows, side, side, channels].
      moves: first row and first column of the window in the padded image, and whether it is
        mirrored left to right, int [rows, 3].
      padding: pixels on each side.

    Returns:
      uint8 [rows, side, side, channels].
    """
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    top, left, mirrored = moves.astype(np.int64).T[..., np.newaxis]
    places = np.arange(side)
    rows = top + places
    columns = left + np.where(mirrored, side - 1 - places, places)
    each = np.arange(len(images))[:, np.newaxis, np.newaxis]
    return padded[each, rows[:, :, np.newaxis], columns[:, np.newaxis]]
