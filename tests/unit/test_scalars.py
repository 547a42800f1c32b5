"""Numbers that change with every call are not kept by TensorFlow for ever."""

from __future__ import annotations

import sys

import pytest
import tensorflow as tf

from engine.keeping.board import Board, Row
from engine.keeping.clock import Clock
from engine.numerics.scalars import real, whole
from engine.state import Best, Times
from engine.stopping import Monitor


def kept(use) -> bool:
    """Whether anything holds on to a number that it was given."""
    number = 0.1234567 + id(use) / 2**70
    before = sys.getrefcount(number)
    use(number)
    return sys.getrefcount(number) != before


def test_a_number_of_pythons_is_kept_and_an_array_is_not():
    variable = tf.Variable(0.0, dtype=tf.float64)
    assert kept(variable.assign)  # or there is no need for any of this
    assert not kept(lambda number: variable.assign(real(number)))
    steps = tf.Variable(0, dtype=tf.int64)
    step = 123_456_789_012
    before = sys.getrefcount(step)
    steps.assign(whole(step))
    assert sys.getrefcount(step) == before and int(steps) == step


@pytest.mark.parametrize("what", ["clock", "board", "best"])
def test_what_a_run_writes_again_and_again_is_not_kept(tmp_path, what):
    clock = Clock(Times(), str(tmp_path), writes=False)
    board, best = Board(str(tmp_path)), Best()
    uses = {
        "clock": lambda number: (clock.loop_took(1, number), clock.note()),
        "board": lambda number: board.write("train", [Row(1, 1, {"loss": number})]),
        "best": lambda number: Monitor("train_loss", 0.0, -1).is_best(number, 1, best),
    }
    assert not kept(uses[what])
    board.close()
