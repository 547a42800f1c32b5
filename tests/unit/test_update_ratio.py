"""How far an update moved the weights."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf

from engine.update_ratio import UpdateRatio


def test_it_is_the_norm_of_the_move_over_the_norm_of_the_weights():
    weights = [tf.Variable([3.0, 0.0]), tf.Variable([[4.0]])]
    ratio = UpdateRatio(weights)
    ratio.start()
    weights[0].assign_add([0.3, 0.0])
    weights[1].assign_sub([[0.4]])
    assert ratio.measure() == pytest.approx(0.1, rel=1e-5)
    ratio.start()
    assert ratio.measure() == 0.0


def test_weights_of_zero_have_no_ratio():
    weights = [tf.Variable([0.0])]
    ratio = UpdateRatio(weights)
    ratio.start()
    weights[0].assign([1.0])
    assert math.isnan(ratio.measure())
