"""Seeds the random number generators that set the initial weights of user-defined models."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


def make_seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Returns the result of `make`, called in a `seeded` block.

    Importing Keras draws numbers from Python's generator. If `make` is the first to import Keras,
    `make` is called again after the import, and the second result, equal to the results of later
    calls in the process, is returned.
    """
    imported = "keras" in sys.modules
    with seeded(seed):
        made = make()
    if not imported and "keras" in sys.modules:
        with seeded(seed):
            made = make()
    return made


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, NumPy, TensorFlow and Keras in a `with` block.

    A model that is made in the block has the same initial weights in any process, whatever was made
    before. Initializers that have a seed are not affected. After the block, the states of Python's
    and NumPy's generators are restored. If Keras is imported, Keras's global generator is deleted
    and TensorFlow's generator is seeded again; if not, TensorFlow's generator keeps its state.
    """
    states = random.getstate(), np.random.get_state()
    _reset_keras_generator(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        _reset_keras_generator(seed)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _reset_keras_generator(seed: int) -> None:
    """Calls `keras.utils.set_random_seed`, if Keras is imported; does nothing otherwise.

    That seeds the generators of Python, NumPy and TensorFlow, and deletes Keras's global generator.
    The next use creates another global generator, with a seed from Python's generator, as in a
    process that has not imported Keras yet.
    """
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(seed % 2**32)
