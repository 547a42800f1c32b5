"""Number of steps in a call of the graph: about half a second, and at most the given maximum."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.steps_per_loop import StepsPerLoop

CALLS = st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e4)), max_size=20)


def test_first_call_is_one_step():
    steps_per_loop = StepsPerLoop(0)
    assert steps_per_loop.steps(1000) == 1
    steps_per_loop.took(1, 1e-4)  # whether tracing is fast or slow, this is not the time of a step
    assert steps_per_loop.steps(1000) == 1


@settings(max_examples=200, derandomize=True)
@given(CALLS)
def test_call_length_bounds(calls):
    """A call has at least 1 step and at most the maximum, and grows at most fourfold."""
    steps_per_loop, unbounded = StepsPerLoop(0), 10**18
    length = steps_per_loop.steps(unbounded)
    assert length == 1
    for most, seconds in calls:
        steps = steps_per_loop.steps(most)
        assert 1 <= steps <= most
        steps_per_loop.took(steps, seconds)
        assert 1 <= steps_per_loop.steps(unbounded) <= 4 * length
        length = steps_per_loop.steps(unbounded)


@settings(max_examples=200, derandomize=True)
@given(st.integers(1, 10**6), CALLS)
def test_fixed_length(fixed, calls):
    steps_per_loop = StepsPerLoop(fixed)
    for most, seconds in calls:
        assert steps_per_loop.steps(most) == min(fixed, most)
        steps_per_loop.took(steps_per_loop.steps(most), seconds)


@pytest.mark.parametrize("step_seconds", [1e-4, 3e-3, 0.05, 0.2, 7.0])
def test_calls_reach_target_time(step_seconds):
    steps_per_loop = StepsPerLoop(0, seconds=0.2)
    for _ in range(12):
        steps = steps_per_loop.steps(10**9)
        steps_per_loop.took(steps, steps * step_seconds)
    # Within one step of the target; a step that takes longer has a call of its own.
    assert abs(steps_per_loop.steps(10**9) - max(1, 0.2 / step_seconds)) <= 1


def test_slower_steps_shorten_calls():
    steps_per_loop = StepsPerLoop(0, seconds=0.2)
    for _ in range(8):
        steps_per_loop.took(steps_per_loop.steps(10**9), steps_per_loop.steps(10**9) * 0.001)
    assert steps_per_loop.steps(10**9) > 100
    steps_per_loop.took(200, 20.0)
    assert steps_per_loop.steps(10**9) == 2


@pytest.mark.parametrize("most", [0, -1, -3000])
@pytest.mark.parametrize("fixed", [0, 7])
def test_refuses_empty_call(fixed, most):
    with pytest.raises(ValueError, match="must be at least 1"):
        StepsPerLoop(fixed).steps(most)
