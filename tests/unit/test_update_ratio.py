"""How far an update moved the weights."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf

from engine.numerics.update_ratio import update_ratio


@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_the_norm_of_the_move_over_the_norm_of_the_weights(compiled):
    before = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    after = [tf.constant([3.3, 0.0]), tf.constant([[3.6]])]
    assert float(update_ratio(before, after, compiled)) == pytest.approx(0.1, rel=1e-5)
    assert float(update_ratio(before, before, compiled)) == 0.0


def test_weights_of_zero_have_no_ratio():
    assert math.isnan(update_ratio([tf.constant([0.0])], [tf.constant([1.0])]))
