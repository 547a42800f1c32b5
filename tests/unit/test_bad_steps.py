"""The bad-step detector decides only from the saved state, and names the single bad step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.options import LARGEST_NORMS, MAX_SKIPPED_STEPS, SPIKE_WINDOW
from engine.core.state import BadStepState
from engine.trainer.bad_steps import BadStep, BadStepDetector, BadStepReason, TooManyBadStepsError
from engine.trainer.options import BadStepOptions

NO_LOSSES = np.zeros(0)
BATCH = 64  # examples; every batch is full unless a test says otherwise


class Steady(BadStepDetector):
    """A detector that sees gradient norms of 1 unless a test passes others."""

    def examine(self, step, taken, good, losses, norms=None):
        norms = np.ones(len(losses)) if norms is None else norms
        return super().examine(step, taken, good, losses, norms)


def guard(
    scaled: bool = False, watch: BadStepState | None = None, examples: int = BATCH << 20, **options
) -> BadStepDetector:
    return Steady(
        BadStepOptions(**options), scaled, watch or BadStepState(), examples=examples, batch=BATCH
    )


# Steps that are not finite


def test_not_finite_without_loss_scale():
    """Without a loss scale, the first step that is not finite is a bad step."""
    found = guard()
    assert found.examine(0, 10, True, NO_LOSSES) is None
    assert found.examine(10, 3, False, NO_LOSSES) == BadStep(12, BadStepReason.NOT_FINITE)


def test_loss_scale_may_overflow():
    """A dynamic loss scale may overflow repeatedly, but not 21 times in a row."""
    found = guard(scaled=True)
    for step in range(0, 3000, 3):
        assert found.examine(step, 3, step % 2 == 0, NO_LOSSES) is None
    found = guard(scaled=True)
    for step in range(20):
        assert found.examine(step, 1, False, NO_LOSSES) is None
    assert found.examine(20, 1, False, NO_LOSSES) == BadStep(20, BadStepReason.NOT_FINITE)


def test_finite_step_ends_row():
    """A finite step ends a row of bad steps, wherever calls of the graph begin."""
    bad = [2, 3, 5, 6, 7]  # the third in a row is at step 7
    for calls in ([3, 1, 2, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]):
        found, step = guard(bad_steps=9, bad_steps_in_a_row=2), 0
        faults = []
        for steps in calls:
            step += steps
            faults.append(found.examine(step - steps, steps, step - 1 not in bad, NO_LOSSES))
        assert faults == [None] * (len(calls) - 1) + [BadStep(7, BadStepReason.NOT_FINITE)]


def test_total_budget():
    """`bad_steps` limits the total number of non-finite steps."""
    found = guard(bad_steps=2, bad_steps_in_a_row=9)
    for step in (0, 10):
        assert found.examine(step, 10, False, NO_LOSSES) is None
    assert found.examine(20, 10, False, NO_LOSSES) == BadStep(29, BadStepReason.NOT_FINITE)


def test_state_counts_tolerated_steps():
    """The state counts tolerated steps, and not the step that is reported as bad."""
    watch = BadStepState()
    found = guard(watch=watch, bad_steps=9, bad_steps_in_a_row=1)
    found.examine(0, 1, False, NO_LOSSES)
    assert (int(watch.tolerated), int(watch.in_a_row)) == (1, 1)
    again = guard(watch=watch, bad_steps=9, bad_steps_in_a_row=1)
    assert again.examine(1, 1, False, NO_LOSSES) == BadStep(1, BadStepReason.NOT_FINITE)
    assert (int(watch.tolerated), int(watch.in_a_row)) == (1, 1)


# Spikes


def losses_of(count: int) -> np.ndarray:
    return 2.0 + np.random.default_rng(0).normal(0, 0.1, count)


def test_spike_and_noise():
    losses = losses_of(100)
    assert guard(spike=8.0).examine(0, 100, True, losses) is None
    losses[70] = 2.0 + 0.1 * 12
    assert guard(spike=8.0).examine(0, 100, True, losses) == BadStep(70, BadStepReason.SPIKE)
    assert guard(spike=20.0).examine(0, 100, True, losses) is None
    assert guard().examine(0, 100, True, losses) is None


def test_no_spike_without_history():
    """The first losses and losses that hardly change have no spikes."""
    losses = np.full(100, 2.0)
    losses[15] = 1e6
    assert guard(spike=8.0).examine(0, 16, True, losses[:16]) is None
    losses[15], losses[60] = 2.0, 2.03
    assert guard(spike=8.0).examine(0, 100, True, losses) is None  # below 8 hundredths of 2


def test_falling_and_infinite_loss():
    falling = np.exp(-np.arange(200) / 30)
    assert guard(spike=6.0).examine(0, 200, True, falling) is None
    falling[150] = np.inf
    assert guard(spike=6.0).examine(0, 200, True, falling) == BadStep(150, BadStepReason.SPIKE)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20), spiked=st.booleans())
def test_spike_across_calls_and_restarts(cuts, spiked):
    """The decision does not depend on calls of the graph or on restarts."""
    losses = losses_of(160)
    if spiked:
        losses[120] = 9.0
    whole = guard(spike=8.0).examine(0, 160, True, losses)
    watch, step, found = BadStepState(), 0, None
    while step < 160 and found is None:
        steps = min(cuts[step % len(cuts)], 160 - step)
        found = guard(watch=watch, spike=8.0).examine(
            step, steps, True, losses[step : step + steps]
        )
        step += steps
    assert found == whole


def vanishing(seed: int, steps: int = 600, start: float = 2.3) -> np.ndarray:
    """Returns losses of a normal run that overfits: they fall to 1e-4 and are skewed."""
    random = np.random.default_rng(seed)
    level = start * np.exp(-np.arange(steps) / steps * np.log(start / 1e-4))
    hard = np.where(random.random(steps) < 0.02, 0.1 * start * random.random(steps), 0)
    late = np.minimum(1, np.arange(steps) / 100)
    return level * np.exp(0.3 * late * random.normal(size=steps)) + late * hard


@pytest.mark.parametrize("seed", range(8))
def test_vanishing_losses(seed):
    assert guard(spike=10.0).examine(0, 600, True, vanishing(seed)) is None


@pytest.mark.parametrize("seed", range(8))
def test_loss_above_start(seed):
    losses = vanishing(seed)
    losses[500] = 3.0
    assert guard(spike=10.0).examine(0, 600, True, losses) == BadStep(500, BadStepReason.SPIKE)


@settings(max_examples=30, derandomize=True)
@given(
    seed=st.integers(0, 99),
    at=st.integers(0, 599),
    height=st.floats(0, 100),
    power=st.integers(-60, 60),
    sign=st.sampled_from([1, -1]),
)
def test_unit_of_loss(seed, at, height, power, sign):
    losses = vanishing(seed) + (sign - 1) * 5.0  # from 2.3 to 0, or from -7.7 to -10
    losses[at] += height
    fault = guard(spike=10.0).examine(0, 600, True, losses)
    assert guard(spike=10.0).examine(0, 600, True, losses * 2.0**power) == fault


def test_negative_losses():
    losses = vanishing(0) - 10
    assert guard(spike=10.0).examine(0, 600, True, losses) is None
    losses[500] = -2.0
    assert guard(spike=10.0).examine(0, 600, True, losses) == BadStep(500, BadStepReason.SPIKE)


@pytest.mark.parametrize("seed", range(4))
def test_start_near_final_loss(seed):
    """A loss that hardly falls has no spikes as high as earlier normal steps."""
    random = np.random.default_rng(seed)
    losses = 0.02 * np.exp(0.5 * random.normal(size=600) - np.arange(600) / 120)
    losses[30::20] += 0.02 * random.random(29) + 0.025
    assert guard(spike=10.0).examine(0, 600, True, losses) is None
    losses[590] = 1.0
    assert guard(spike=10.0).examine(0, 600, True, losses) == BadStep(590, BadStepReason.SPIKE)


@pytest.mark.parametrize("rest", [1, 2, 8, 13])
def test_hard_example_in_last_batch(rest):
    """A hard example, of loss 15, is no spike in a last batch of few examples."""
    losses, examples = vanishing(1), 9 * BATCH + rest
    losses[9::10] += 15 / rest
    assert guard(spike=10.0, examples=examples).examine(0, 600, True, losses) is None
    losses[508] = 3.0  # of a full batch
    fault = guard(spike=10.0, examples=examples).examine(0, 600, True, losses)
    assert fault == BadStep(508, BadStepReason.SPIKE)


def test_deviation_of_last_batch():
    """A last batch of 1/16 of the size may deviate four times as much."""
    random = np.random.default_rng(0)
    losses = 2.3 + 0.05 * random.normal(size=600)
    losses[9::10] = 2.3 + 0.2 * random.normal(size=60)
    losses[509] = 2.3 + 0.2 * 3.5
    examples = 9 * 1024 + 64
    found = Steady(BadStepOptions(spike=10.0), False, BadStepState(), examples=examples, batch=1024)
    assert found.examine(0, 600, True, losses) is None


@pytest.mark.parametrize("step", [0, 7, 15])
def test_outlier_among_first_losses(step):
    losses = vanishing(2)
    losses[step], losses[500] = 1e6, 3.0
    assert guard(spike=10.0).examine(0, 600, True, losses) == BadStep(500, BadStepReason.SPIKE)


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(20, 150), min_size=1, max_size=9), height=st.floats(0.5, 4))
def test_vanishing_losses_across_restarts(cuts, height):
    losses, watch, step, found = vanishing(3), BadStepState(), 0, None
    losses[520] = height
    whole = guard(spike=10.0).examine(0, 600, True, losses)
    while step < 600 and found is None:
        steps = min(cuts[step % len(cuts)], 600 - step)
        found = guard(watch=watch, spike=10.0).examine(
            step, steps, True, losses[step : step + steps]
        )
        step += steps
    assert found == whole


def test_oscillation_is_no_spike():
    """Losses that oscillate and recover, as of an mlp with SGD and rate 0.5, are no spikes."""
    losses = vanishing(5)
    losses[500:512] = 0.08, 0.13, 0.49, 2.8, 4.4, 4.4, 4.7, 1.9, 1.1, 0.8, 0.5, 0.4
    assert guard(spike=10.0).examine(0, 600, True, losses) is None
    losses[503] = 30.0
    assert guard(spike=10.0).examine(0, 600, True, losses) == BadStep(503, BadStepReason.SPIKE)


def test_state_start_and_excess():
    losses, watch = vanishing(4), BadStepState()
    for step in range(0, 600, 100):
        guard(watch=watch, spike=10.0).examine(step, 100, True, losses[step : step + 100])
    assert float(watch.initial_loss) == np.sort(losses[:16])[-2]
    excesses = [
        losses[step] - np.median(losses[max(0, step - 64) : step]) for step in range(16, 600)
    ]
    assert float(watch.max_excess) == max(excesses)


def test_bad_loss_not_in_history():
    found = guard(spike=8.0, bad_steps=9, bad_steps_in_a_row=9)
    losses = losses_of(SPIKE_WINDOW)
    assert found.examine(0, SPIKE_WINDOW, True, losses) is None
    assert found.examine(SPIKE_WINDOW, 1, False, np.array([np.nan])) is None
    again = guard(spike=8.0, watch=found._watch, bad_steps=9)
    assert again._losses == list(losses)


def norms_of(seed: int, steps: int = 600) -> np.ndarray:
    """Returns gradient norms of a normal run, which vanish with the loss and are skewed."""
    return 3.0 * vanishing(seed, steps)


@pytest.mark.parametrize("step", [16, 17, 300, 599])
def test_steep_gradient_with_low_loss(step):
    losses, norms = vanishing(0), norms_of(1)
    assert guard(spike=10.0).examine(0, 600, True, losses, norms) is None
    norms[step] = 10.1 * np.sort(norms[:step])[-2]
    found = guard(spike=10.0).examine(0, 600, True, losses, norms)
    assert found == BadStep(step, BadStepReason.STEEP) and found.reason.updated_weights
    assert guard().examine(0, 600, True, losses, norms) is None
    norms[step] = 9.9 * np.sort(norms[:step])[-2]
    assert guard(spike=10.0).examine(0, 600, True, losses, norms) is None


@pytest.mark.parametrize("step", [0, 7, 15])
def test_outlier_among_first_norms(step):
    losses, norms = vanishing(0), norms_of(1)
    norms[step] = 1e6
    assert guard(spike=10.0).examine(0, 600, True, losses, norms) is None
    norms[400] = 1e3
    fault = guard(spike=10.0).examine(0, 600, True, losses, norms)
    assert fault == BadStep(400, BadStepReason.STEEP)


@settings(max_examples=30)
@given(
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    at=st.integers(0, 159),
    power=st.integers(-60, 60),
)
def test_norms_across_calls_and_restarts(cuts, at, power):
    """The decision does not depend on calls of the graph, restarts or the norms' unit."""
    losses, norms = losses_of(160), norms_of(2, 160)
    norms[at] = 200.0
    whole = guard(spike=10.0).examine(0, 160, True, losses, norms)
    assert whole == (BadStep(at, BadStepReason.STEEP) if at >= 16 else None)
    watch, step, found = BadStepState(), 0, None
    while step < 160 and found is None:
        here = slice(step, min(step + cuts[step % len(cuts)], 160))
        found = guard(watch=watch, spike=10.0).examine(
            step, here.stop - step, True, losses[here], norms[here] * 2.0**power
        )
        step = here.stop
    assert found == whole


def test_steep_gradient_in_last_batch():
    """One hard example weighs 32 times as much among 2 examples as among 64."""
    losses, norms = vanishing(1), np.ones(600)
    norms[9::10] = 30.0
    assert guard(spike=10.0, examples=9 * BATCH + 2).examine(0, 600, True, losses, norms) is None
    assert guard(spike=10.0).examine(0, 600, True, losses, norms) == BadStep(
        19, BadStepReason.STEEP
    )


def test_state_largest_norms():
    norms, watch = norms_of(4), BadStepState()
    for step in range(0, 600, 100):
        here = slice(step, step + 100)
        guard(watch=watch, spike=10.0).examine(step, 100, True, vanishing(4)[here], norms[here])
    np.testing.assert_array_equal(watch.norms.numpy(), np.sort(norms)[::-1][:LARGEST_NORMS])


# Skipped steps


def test_skipped_steps_after_restart():
    watch = BadStepState()
    found = guard(watch=watch, leave_out="3,40")
    found.leave_out(BadStep(17, BadStepReason.SPIKE))
    for each in (found, guard(watch=watch, leave_out="3,40")):
        assert each.left_out == {
            3: BadStepReason.ASKED_FOR,
            40: BadStepReason.ASKED_FOR,
            17: BadStepReason.SPIKE,
        }
        assert [each.steps_until_skipped(step) for step in (0, 3, 4, 17, 18)] == [3, 0, 13, 0, 22]
        assert each.steps_until_skipped(41) > 1 << 60


def test_too_many_skipped_steps():
    found = guard(most_left_out=2)
    for step in (5, 1200):
        found.leave_out(BadStep(step, BadStepReason.NOT_FINITE))
    with pytest.raises(
        TooManyBadStepsError, match=r"step 2,000 is a bad step .*one more than --most_left_out=2"
    ):
        found.leave_out(BadStep(2000, BadStepReason.SPIKE))
    assert sorted(found.left_out) == [5, 1200]


def test_state_holds_all_skipped_steps():
    """The state has room for the largest number of skipped steps that can be requested."""
    found = guard(most_left_out=MAX_SKIPPED_STEPS)
    for step in range(MAX_SKIPPED_STEPS):
        found.leave_out(BadStep(step, BadStepReason.NOT_FINITE))
    with pytest.raises(TooManyBadStepsError):
        found.leave_out(BadStep(MAX_SKIPPED_STEPS, BadStepReason.NOT_FINITE))


@pytest.mark.parametrize("steps", ["x", "1,", "1;2", "-1", "1, 2"])
def test_leave_out_needs_numbers(steps):
    with pytest.raises(ValueError, match=f"--leave_out={steps}: give numbers of steps"):
        BadStepOptions(leave_out=steps)
