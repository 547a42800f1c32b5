"""The learning rate: a pure function of the step, and the formula it is named after."""

import math

import numpy as np
import pytest
import tensorflow as tf

from engine import schedule
from engine.config import Optimization

NAMES = ("constant", "cosine", "step", "exponential", "one_cycle")
PEAK = 0.05


def rates(name, total, steps=None, **options):
    """The schedule's values at `steps`, in their order, out of one graph."""
    built = schedule.build(name, learning_rate=PEAK, total_steps=total, **options)
    spec = tf.TensorSpec([], tf.int64)
    compiled = tf.function(built, autograph=False).get_concrete_function(spec)
    values = [compiled(tf.constant(step, tf.int64)) for step in (steps or range(total))]
    assert all(value.dtype == tf.float64 and value.shape == [] for value in values)
    return np.array(values)


def pytorch_one_cycle(step, total):
    """OneCycleLR's two phases (three_phase=False), anneal_strategy "cos", with its defaults."""
    pct_start, div_factor, final_div_factor = 0.3, 25.0, 1e4
    initial = PEAK / div_factor
    phases = [
        (float(pct_start * total) - 1, initial, PEAK),
        (total - 1, PEAK, initial / final_div_factor),
    ]
    start_step = 0.0
    for index, (end_step, start, end) in enumerate(phases):
        if step <= end_step or index == len(phases) - 1:
            fraction = (step - start_step) / (end_step - start_step)
            return end + (start - end) / 2.0 * (math.cos(math.pi * fraction) + 1)
        start_step = end_step


def reference(name, step, total, warmup, decay_rate, decay_steps, final_fraction):
    """The rate by the definition, with no TensorFlow in it."""
    if step < warmup:
        return PEAK * (step + 1) / warmup
    step, total = step - warmup, total - warmup
    if name == "constant":
        return PEAK
    if name == "cosine":
        low = PEAK * final_fraction
        return low + 0.5 * (PEAK - low) * (1 + math.cos(math.pi * step / total))
    if name == "step":
        return PEAK * decay_rate ** (step // decay_steps if decay_steps else 3 * step // total)
    if name == "exponential":
        return PEAK * decay_rate ** (step / decay_steps if decay_steps else 3 * step / total)
    return pytorch_one_cycle(step, total)


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("total", [8, 101])
@pytest.mark.parametrize(
    ("name", "decay_rate", "decay_steps", "final_fraction"),
    [
        ("constant", 0.1, 0, 0.0),
        ("cosine", 0.1, 0, 0.0),
        ("cosine", 0.1, 0, 0.25),
        ("step", 0.1, 0, 0.0),
        ("step", 0.5, 4, 0.0),
        ("exponential", 0.1, 0, 0.0),
        ("exponential", 0.97, 1, 0.0),
        ("one_cycle", 0.1, 0, 0.0),
    ],
)
def test_every_step_has_the_rate_of_the_formula(
    name, decay_rate, decay_steps, final_fraction, total, warmup
):
    rules = {
        "decay_rate": decay_rate,
        "decay_steps": decay_steps,
        "final_fraction": final_fraction,
    }
    found = rates(name, total, warmup_steps=warmup, **rules)
    wanted = [reference(name, step, total, warmup, **rules) for step in range(total)]
    # A few roundings of float64; where a cosine ends near zero they are relative to the peak.
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-15 * PEAK)


def test_one_cycle_begins_peaks_and_ends_where_it_says():
    values = rates("one_cycle", 100)
    assert np.argmax(values) == 29 and values[29] == pytest.approx(PEAK, rel=1e-12)
    assert values[0] == pytest.approx(PEAK / 25, rel=1e-12)
    assert values[-1] == pytest.approx(PEAK / 25 / 1e4, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_warmup_rises_linearly_and_reaches_the_peak_at_its_last_step(name):
    values = rates(name, 20, warmup_steps=5)
    np.testing.assert_allclose(values[:5], PEAK * np.arange(1, 6) / 5, rtol=1e-15)


@pytest.mark.parametrize("warmup", [0, 6])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_the_same_rate_to_the_bit_whatever_was_asked_before(name, warmup):
    forward = rates(name, 40, warmup_steps=warmup)
    order = [int(step) for step in np.random.default_rng(1).permutation(40)]
    jumping = rates(name, 40, order, warmup_steps=warmup)
    assert forward[order].tobytes() == jumping.tobytes()
    assert forward[25:].tobytes() == rates(name, 40, range(25, 40), warmup_steps=warmup).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_rates_lie_above_zero_and_not_above_the_peak(name):
    for total, warmup in ((1, 0), (2, 1), (3, 1), (4, 0), (57, 11)):
        values = rates(name, total, warmup_steps=warmup)
        assert np.all(np.isfinite(values)), (total, warmup, values)
        assert np.all((values > 0) & (values <= PEAK * (1 + 1e-15))), (total, warmup, values)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_one_to_three_steps_has_the_rates_of_the_formula(name):
    for total in (1, 2, 3):
        wanted = [reference(name, step, total, 0, 0.1, 0, 0.0) for step in range(total)]
        np.testing.assert_allclose(rates(name, total), wanted, rtol=1e-12)


@pytest.mark.parametrize(("warmup", "total"), [(5, 5), (6, 5), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_a_warmup_that_leaves_no_step_is_refused(name, warmup, total):
    with pytest.raises(ValueError, match=f"--warmup_steps={warmup}: .* {total} steps"):
        schedule.build(name, learning_rate=PEAK, total_steps=total, warmup_steps=warmup)


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'polynomial'.*cosine"):
        schedule.build("polynomial", learning_rate=PEAK, total_steps=5)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("decay_steps", [0, 4])
@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_depends_on_length_exactly_when_a_longer_run_begins_otherwise(
    name, decay_steps, warmup
):
    options = {"decay_steps": decay_steps, "warmup_steps": warmup}
    short, long = rates(name, 20, **options), rates(name, 40, range(20), **options)
    of_run = Optimization(schedule=name, decay_steps=decay_steps)
    assert of_run.depends_on_length == (short.tobytes() != long.tobytes())
