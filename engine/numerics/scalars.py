"""Numbers on their way into TensorFlow.

TensorFlow keeps a tensor of every Python number that it has ever been given, for as long as the
process lives: a run that hands it the time at each call grows without end. Arrays it lets go.
"""

from __future__ import annotations

import numpy as np


def real(value: float) -> np.ndarray:
    """float64 []."""
    return np.array(value, np.float64)


def whole(value: int) -> np.ndarray:
    """int64 []."""
    return np.array(value, np.int64)
