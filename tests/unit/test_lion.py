"""Lion: the update is the learning rate times a sign."""

import tensorflow as tf

from engine.optim.lion import Lion

RATE = tf.constant(0.25, tf.float64)
FIRST = tf.constant(0, tf.int64)


def test_update_is_rate_or_zero():
    optimizer, variable = Lion(0.9, 0.99), tf.Variable([1.0, 1.0, 1.0])
    optimizer.create_slots([variable])
    optimizer.apply([tf.constant([1e-30, -1e30, 0.0])], [variable], RATE, FIRST)
    assert variable.numpy().tolist() == [0.75, 1.25, 1.0]


def test_beta_1_of_zero():
    """With beta_1 = 0, the update uses only the gradient, however large the momentum is."""
    optimizer, variable = Lion(0.0, 0.99), tf.Variable([1.0])
    optimizer.create_slots([variable])
    optimizer.means[0].assign([1e10])
    optimizer.apply([tf.constant([-1e-3])], [variable], RATE, FIRST)
    assert variable.numpy().tolist() == [1.25]
