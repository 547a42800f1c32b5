import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.models.seeding import seeded


def drawn():
    """Returns numbers from each global generator that initial values may use."""
    return [
        random.random(),
        np.random.random(),
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
        *np.asarray(keras.initializers.GlorotUniform()((2, 2))).ravel().tolist(),
    ]


def test_same_numbers_again():
    with seeded(5):
        first = drawn()
    drawn()
    keras.utils.set_random_seed(1)
    with seeded(5):
        assert drawn() == first
    with seeded(6):
        assert not set(drawn()) & set(first)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**40, -1])
def test_any_seed(seed):
    with seeded(seed):
        first = drawn()
    with seeded(seed):
        assert drawn() == first


def test_states_are_restored():
    random.seed(3), np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3), np.random.seed(3)
    with pytest.raises(KeyError), seeded(5):
        drawn()
        raise KeyError
    assert (random.random(), np.random.random()) == expected


def test_import_of_keras_draws_nothing():
    """A seeded model is the same whether or not Keras is first imported while it is made."""
    code = """
import sys
from engine.runtime.startup import import_tensorflow
import_tensorflow()
from engine.models.seeding import make_seeded
assert not [name for name in sys.modules if name.split(".")[0] == "keras"]

def make():
    import keras
    return float(keras.random.uniform([])), *keras.initializers.GlorotUniform()((1, 2)).numpy()[0]

first, second = make_seeded(5, make), make_seeded(5, make)
assert first == second != make_seeded(6, make), (first, second)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
