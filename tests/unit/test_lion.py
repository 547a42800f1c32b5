"""Lion: the sign, and nothing but the sign."""

import tensorflow as tf

from engine.optimizers.lion import Lion

RATE = tf.constant(0.25, tf.float64)
FIRST = tf.constant(0, tf.int64)


def test_a_weight_moves_by_the_rate_or_not_at_all():
    optimizer, variable = Lion(0.9, 0.99), tf.Variable([1.0, 1.0, 1.0])
    optimizer.create_slots([variable])
    optimizer.apply([tf.constant([1e-30, -1e30, 0.0])], [variable], RATE, FIRST)
    assert variable.numpy().tolist() == [0.75, 1.25, 1.0]


def test_without_a_share_of_the_mean_the_gradients_sign_is_not_lost_beside_it():
    optimizer, variable = Lion(0.0, 0.99), tf.Variable([1.0])
    optimizer.create_slots([variable])
    optimizer.means[0].assign([1e10])
    optimizer.apply([tf.constant([-1e-3])], [variable], RATE, FIRST)
    assert variable.numpy().tolist() == [1.25]
