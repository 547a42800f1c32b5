"""TensorFlow does not cache numbers that are passed as arrays, so that memory does not grow."""

from __future__ import annotations

import sys

import pytest
import tensorflow as tf

from engine.core.early_stopping import Monitor, MonitoredMetric
from engine.core.state import BestState, TimingState
from engine.logging.metric_writer import MetricRow, MetricWriter
from engine.logging.throughput import ThroughputMeter
from engine.runtime.scalars import as_float64, as_int64


def kept(use) -> bool:
    """Returns whether a reference to a number remains after `use` was called with it."""
    number = 0.1234567 + id(use) / 2**70
    before = sys.getrefcount(number)
    use(number)
    return sys.getrefcount(number) != before


def test_arrays_are_not_kept():
    """TensorFlow keeps a reference to a Python number, but not to an array."""
    variable = tf.Variable(0.0, dtype=tf.float64)
    assert kept(variable.assign)  # otherwise the conversions are not needed
    assert not kept(lambda number: variable.assign(as_float64(number)))
    steps = tf.Variable(0, dtype=tf.int64)
    step = 123_456_789_012
    before = sys.getrefcount(step)
    steps.assign(as_int64(step))
    assert sys.getrefcount(step) == before and int(steps) == step


@pytest.mark.parametrize("what", ["clock", "board", "best", "ranking"])
def test_repeated_writes_keep_nothing(tmp_path, what):
    clock = ThroughputMeter(TimingState(), str(tmp_path), writes=False)
    metric_writer, best = MetricWriter(str(tmp_path)), BestState()
    monitor = Monitor(MonitoredMetric("train", "loss"), 0.0, -1, higher_is_better=False)
    uses = {
        "clock": lambda number: (clock.record_call(1, number), clock.note()),
        "board": lambda number: metric_writer.write("train", [MetricRow(1, 1, {"loss": number})]),
        "best": lambda number: monitor.is_best(number, 1, best),
        "ranking": lambda number: monitor.rank(number, 1, best, 3),
    }
    assert not kept(uses[what])
    metric_writer.close()
