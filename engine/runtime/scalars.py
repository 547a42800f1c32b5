"""Conversion of Python numbers to 0-dimensional arrays, to pass them to TensorFlow.

TensorFlow caches a tensor of every Python number that it receives until the process ends: a run
that passes the time in each call would use ever more memory. It does not cache arrays.
"""

from __future__ import annotations

import numpy as np


def as_float64(value: float) -> np.ndarray:
    """Returns the value as float64 []."""
    return np.array(value, np.float64)


def as_int64(value: int) -> np.ndarray:
    """Returns the value as int64 []."""
    return np.array(value, np.int64)
