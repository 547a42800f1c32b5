"""The plateau schedule: reductions as in PyTorch, whatever interrupts the run."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.early_stopping import Monitor, MonitoredMetric
from engine.optim.plateau import Plateau
from engine.optim.schedules import build_schedule


def monitor(higher: bool, min_delta: float) -> Monitor:
    metric = MonitoredMetric("validation", "accuracy" if higher else "loss")
    return Monitor(metric, min_delta, -1, higher_is_better=higher)


def reference(
    values, *, higher, min_delta, rate, decay_rate, patience, cooldown, floor
) -> list[float]:
    """Returns the learning rates after each value, by the rules that PyTorch documents.

    Those of `torch.optim.lr_scheduler.ReduceLROnPlateau` with threshold_mode="abs" and eps=0.
    """
    best, bad, resting, found = -math.inf if higher else math.inf, 0, 0, []
    for value in values:
        better = value > best + min_delta if higher else value < best - min_delta
        best, bad = (value, 0) if better else (best, bad + 1)
        if resting > 0:
            resting, bad = resting - 1, 0
        if bad > patience:
            rate, resting, bad = max(rate * decay_rate, floor), cooldown, 0
        found.append(rate)
    return found


def copied(state: Plateau) -> Plateau:
    """Returns a new state with the values of another one, as a checkpoint restores them."""
    fresh = Plateau(state._decay_rate, state._patience, state._cooldown, state._floor)
    for old, new in zip(state.variables, fresh.variables, strict=True):
        new.assign(old)
    return fresh


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5]), min_size=1, max_size=200),
    st.booleans(),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 12),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sets(st.integers(0, 199)),
)
def test_reduces_as_pytorch(
    moves, higher, min_delta, decay_rate, patience, cooldown, floor, interrupted
):
    """Over random walks, also where the state is restored from a checkpoint."""
    peak, value, walk = 0.4, 0.0, []
    for move in moves:
        value += move
        walk.append(value)
    expected = reference(
        walk,
        higher=higher,
        min_delta=min_delta,
        rate=peak,
        decay_rate=decay_rate,
        patience=patience,
        cooldown=cooldown,
        floor=floor * peak,
    )
    state, improves = Plateau(decay_rate, patience, cooldown, floor), monitor(higher, min_delta)
    found, before = [], 1.0
    for index, each in enumerate(walk):
        reduced = state.update(each, improves.improves)
        assert reduced == (float(state.factor) < before)
        before = float(state.factor)
        found.append(peak * before)
        if index in interrupted:
            state = copied(state)
    assert found == pytest.approx(expected, rel=1e-12)


def test_nan_does_not_improve():
    state, improves = Plateau(0.5, 0, 0, 0.0), monitor(False, 0.0).improves
    assert [state.update(value, improves) for value in (math.nan, 3.0, math.nan, 2.0)] == [
        *(True, False, True, False)
    ]


def test_after_the_warmup():
    """The warmup rises to the peak; the factor applies after it."""
    schedule = build_schedule(
        "plateau", learning_rate=0.8, total_steps=20, warmup_steps=4, decay_rate=0.25
    )
    assert schedule.plateau is not None and not schedule.depends_on_length
    schedule.plateau.factor.assign(0.25)
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.2, 0.2])
    factor = tf.constant(0.5, tf.float64)
    assert float(schedule(tf.constant(9, tf.int64), factor)) == pytest.approx(0.4)


def test_others_have_no_state():
    assert build_schedule("cosine", learning_rate=1.0, total_steps=9).plateau is None
