"""Conversion of Python numbers to scalar NumPy arrays, which are passed to TensorFlow.

TensorFlow caches a tensor for every Python number that it receives until the process ends, so
memory would grow with every new value. Arrays are not cached.
"""

from __future__ import annotations

import numpy as np


def as_float64(value: float) -> np.ndarray:
    """Returns the value as a float64 array of shape []."""
    return np.array(value, np.float64)


def as_int64(value: int) -> np.ndarray:
    """Returns the value as an int64 array of shape []."""
    return np.array(value, np.int64)
