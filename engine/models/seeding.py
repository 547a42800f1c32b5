"""Seeds of the random number generators that user-defined models take their initial values from."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


def make_seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Returns what `make` returns in a `seeded` block.

    The import of Keras itself draws numbers from Python's generator. If `make` is the first to
    import it, `make` is called once more, so that a second model of the process is the same.
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

    A model that is made in the block starts from the same weights in any process, whatever was made
    before it. Initializers with a seed of their own are not affected. The states of Python and
    NumPy are restored after the block; the generators of Keras and TensorFlow are reset in it.
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
    """Resets Keras's global generator, if Keras is imported, and all the others that it seeds.

    The next use of the generator creates another, with a seed from Python's generator, as in a
    process that has not imported Keras yet.
    """
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(seed % 2**32)
