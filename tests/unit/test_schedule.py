"""The learning rate: a pure function of the step, within its bounds."""

import numpy as np
import pytest

from engine import schedule
from engine.config import SCHEDULES as NAMES
from engine.config import Optimization
from tests.harness import rates_of

PEAK = 0.05


def rates(name, total, steps=None, **options):
    """The schedule's values at `steps`, in their order, out of one graph."""
    built = schedule.build(name, learning_rate=PEAK, total_steps=total, **options)
    return rates_of(built, steps or range(total))


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
