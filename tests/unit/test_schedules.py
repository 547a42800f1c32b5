"""Learning-rate schedules: pure functions of the step, and their bounds."""

import numpy as np
import pytest
import tensorflow as tf

from engine.optim import schedules
from engine.optim.options import ScheduleOptions
from engine.optim.registry import SCHEDULES
from tests.harness import rates_of

PEAK = 0.05


def rates(name, total, steps=None, **options):
    """Returns the schedule's values at `steps`, in their order, from one graph."""
    built = schedules.build_schedule(name, learning_rate=PEAK, total_steps=total, **options)
    return rates_of(built, steps or range(total))


def test_one_cycle():
    values = rates("one_cycle", 100)
    assert np.argmax(values) == 29 and values[29] == pytest.approx(PEAK, rel=1e-12)
    assert values[0] == pytest.approx(PEAK / 25, rel=1e-12)
    assert values[-1] == pytest.approx(PEAK / 25 / 1e4, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_linear_warmup(name):
    values = rates(name, 20, warmup_steps=5)
    np.testing.assert_allclose(values[:5], PEAK * np.arange(1, 6) / 5, rtol=1e-15)


@pytest.mark.parametrize("warmup", [0, 6])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rate_is_pure_function(name, warmup):
    forward = rates(name, 40, warmup_steps=warmup)
    order = [int(step) for step in np.random.default_rng(1).permutation(40)]
    jumping = rates(name, 40, order, warmup_steps=warmup)
    assert forward[order].tobytes() == jumping.tobytes()
    assert forward[25:].tobytes() == rates(name, 40, range(25, 40), warmup_steps=warmup).tobytes()


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_within_bounds(name):
    for total, warmup in ((1, 0), (2, 1), (3, 1), (4, 0), (57, 11)):
        values = rates(name, total, warmup_steps=warmup)
        assert np.all(np.isfinite(values)), (total, warmup, values)
        assert np.all((values > 0) & (values <= PEAK * (1 + 1e-15))), (total, warmup, values)


def test_triangle():
    """That of airbench94: from 0.2 of the peak at once to it, and down to 0.07."""
    found = rates("piecewise_linear", 500, schedule_points="0:0.2,0.23:1,1:0.07")
    steps = np.arange(500)
    up, down = 0.2 + 0.8 * steps / 115, 1 - 0.93 * (steps - 115) / 385
    np.testing.assert_allclose(found, PEAK * np.where(steps <= 115, up, down), rtol=1e-12)


def test_drops_of_resnet():
    """The drops of He et al. 2016, section 4.2: at 32,000 and 48,000 of 64,000 steps, exactly."""
    steps = (0, 31_999, 32_000, 47_999, 48_000, 63_999)
    found = rates("piecewise_constant", 64_000, steps)
    np.testing.assert_allclose(found / PEAK, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-15)


@pytest.mark.parametrize("name", ["piecewise_linear", "piecewise_constant"])
def test_one_point(name):
    assert (rates(name, 9, schedule_points="0:0.25") == PEAK / 4).all()
    found = rates(name, 8, schedule_points=" 0.5:0 ")
    linear = [1, 0.75, 0.5, 0.25, 0, 0, 0, 0]
    expected = linear if name == "piecewise_linear" else [1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(found, PEAK * np.array(expected), rtol=1e-15)


@pytest.mark.parametrize(
    "text", ["", "0.5", "0.5:2", "-0.1:1", "1.5:1", "0.5:1,0.5:0", "a:1", "nan:1"]
)
def test_refused_points(text):
    with pytest.raises(ValueError) as error:
        ScheduleOptions(schedule_points=text)
    assert str(error.value).startswith(f"--schedule_points={text}: ")


@pytest.mark.parametrize(("warmup", "total"), [(5, 5), (6, 5), (1, 1)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_refuses_long_warmup(name, warmup, total):
    with pytest.raises(ValueError, match=f"--warmup_steps={warmup}: .* {total} steps"):
        schedules.build_schedule(name, learning_rate=PEAK, total_steps=total, warmup_steps=warmup)


def test_refuses_unknown_schedule():
    with pytest.raises(ValueError, match=r"'polynomial'.*cosine"):
        schedules.build_schedule("polynomial", learning_rate=PEAK, total_steps=5)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("decay_steps", [0, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_depends_on_length(name, decay_steps, warmup):
    """A schedule depends on the length exactly if a longer run starts differently."""
    options = {"decay_steps": decay_steps, "warmup_steps": warmup}
    short, long = rates(name, 20, **options), rates(name, 40, range(20), **options)
    built = schedules.build_schedule(name, learning_rate=PEAK, total_steps=20, **options)
    assert built.depends_on_length == (short.tobytes() != long.tobytes())


@pytest.mark.parametrize(
    "shape",
    [lambda step: 0.1, lambda step: tf.constant(0.1), lambda step: 1, lambda step: np.float32(0.1)],
    ids=["number", "float32", "integer", "numpy"],
)
@pytest.mark.parametrize("warmup", [0, 2])
def test_own_schedule_of_another_dtype(shape, warmup, monkeypatch):
    """The learning rate is float64, whatever a schedule of a user returns."""
    monkeypatch.setitem(SCHEDULES._entries, "own", lambda: shape)
    built = schedules.build_schedule("own", learning_rate=PEAK, total_steps=9, warmup_steps=warmup)
    rate = built(tf.constant(5, tf.int64))
    assert rate.dtype == tf.float64
    assert float(rate) == PEAK * float(tf.convert_to_tensor(shape(0), dtype_hint=tf.float64))
