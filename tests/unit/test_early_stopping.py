"""Early stopping and the best epoch: as in Keras, with and without interruptions."""

import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.early_stopping import Monitor, MonitoredMetric, StopReason, StopRules, resolve
from engine.core.state import BestState, PatienceState

# Multiples of 1/64: exact in float32, in which Keras compares, and in float64.
NUMBERS = st.integers(0, 24).map(lambda number: number / 64)
DELTAS = st.sampled_from([0.0, 1 / 64, 2 / 64, 8 / 64])


def make_monitor(metric, min_delta, patience):
    higher = metric.endswith("accuracy")
    return Monitor(named(metric), min_delta, patience, higher_is_better=higher)


def named(metric):
    """Returns the `MonitoredMetric` of a text such as "validation_accuracy"."""
    return MonitoredMetric(*metric.split("_", 1))


METRICS = st.sampled_from(["validation_accuracy", "train_loss"])


@st.composite
def sequences(draw):
    """Draws the values of a metric by epoch; the first is a number, because Keras needs one."""
    later = NUMBERS | st.sampled_from([math.nan, math.inf])
    return [draw(NUMBERS), *draw(st.lists(later, max_size=14))]


class FakeModel:
    """Fake Keras model with the attribute and the method that the callbacks use."""

    def __init__(self):
        self.stop_training, self.saved = False, 0

    def save(self, path, overwrite):
        self.saved += 1


def keras_mode(metric):
    return "max" if "accuracy" in metric else "min"


def keras_stopping(metric, values, min_delta, patience):
    """Returns (epochs run, epochs that improved) of keras.callbacks.EarlyStopping."""
    model = FakeModel()
    callback = keras.callbacks.EarlyStopping(
        monitor="m", mode=keras_mode(metric), min_delta=min_delta, patience=patience
    )
    callback.set_model(model)
    callback.on_train_begin()
    better = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"m": value})
        if callback.best_epoch == epoch and callback.wait == 0:
            better.append(epoch)
        if model.stop_training:
            return epoch + 1, better
    return None, better


def keras_best(metric, values):
    """Returns the epochs that keras.callbacks.ModelCheckpoint(save_best_only=True) saves."""
    model = FakeModel()
    callback = keras.callbacks.ModelCheckpoint(
        "best.keras", monitor="m", mode=keras_mode(metric), save_best_only=True
    )
    callback.set_model(model)
    saved = []
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch)
        before = model.saved
        callback.on_epoch_end(epoch, {"m": value})
        if model.saved > before:
            saved.append(epoch)
    return saved


def stopping(metric, values, min_delta, patience, interrupted=()):
    """Returns (epochs run, epochs that improved) by `Monitor`, for the values of a metric.

    After each epoch in `interrupted`, a new monitor continues from a copy of the state.
    """
    state = PatienceState()
    monitor = make_monitor(metric, min_delta, patience)
    better = []
    for epoch, value in enumerate(values):
        stop = monitor.decide(value, epoch, epoch == 0, BestState(), state)
        if int(state.wait) == 0:
            better.append(epoch)
        if stop:
            assert int(state.stopped) == 1
            return epoch + 1, better
        if epoch in interrupted:
            state, monitor = copied(state), make_monitor(metric, min_delta, patience)
    return None, better


def best(metric, values, interrupted=()):
    """Returns the epochs that `Monitor` selects as the best so far; the step is the epoch.

    After each epoch in `interrupted`, a new monitor continues from a copy of the state.
    """
    state, monitor = BestState(), make_monitor(metric, 0.5, 1)
    found = []
    for epoch, value in enumerate(values):
        if monitor.is_best(value, epoch, state):
            found.append(epoch)
            assert float(state.value) == value
        assert int(state.step) == (found[-1] if found else -1)
        if epoch in interrupted:
            state, monitor = copied(state), make_monitor(metric, 0.5, 1)
    return found


def copied(state):
    """Returns a new state object with the values of `state`, as a checkpoint restores them."""
    fresh = type(state)()
    for old, new in zip(state.variables, fresh.variables, strict=True):
        new.assign(old)
    return fresh


@settings(max_examples=200, derandomize=True)
@given(METRICS, sequences(), DELTAS, st.integers(0, 4))
def test_stops_when_keras_stops(metric, values, min_delta, patience):
    assert stopping(metric, values, min_delta, patience) == keras_stopping(
        metric, values, min_delta, patience
    )


@settings(max_examples=200, derandomize=True)
@given(METRICS, sequences())
def test_best_epochs_match_keras(metric, values):
    assert best(metric, values) == keras_best(metric, values)


@settings(max_examples=200, derandomize=True)
@given(METRICS, sequences(), DELTAS, st.integers(0, 4), st.sets(st.integers(0, 14)))
def test_interrupted_run(metric, values, min_delta, patience, interrupted):
    """An interrupted run stops and selects the best epoch as an uninterrupted one."""
    undisturbed = stopping(metric, values, min_delta, patience)
    assert stopping(metric, values, min_delta, patience, interrupted) == undisturbed
    assert best(metric, values, interrupted) == best(metric, values)


@pytest.mark.parametrize("metric", ["train_loss", "validation_accuracy"])
def test_nan_is_never_best(metric):
    assert best(metric, [math.nan, math.nan, 0.5, math.nan, 0.5]) == [2]


@pytest.mark.parametrize("metric", ["train_loss", "validation_accuracy"])
def test_nan_exhausts_patience(metric):
    assert stopping(metric, [math.nan] * 9, 0.0, 3) == (3, [])


def test_improvement_of_min_delta():
    """An improvement of exactly `min_delta` does not count."""
    assert stopping("train_loss", [1.0, 0.75, 0.5], 0.25, 5) == (None, [0, 2])
    assert stopping("validation_accuracy", [0.0, 0.25, 0.5], 0.25, 5) == (None, [0, 2])


def test_never_stops_without_patience():
    assert stopping("train_loss", [0.0] + [1.0] * 20, 0.0, -1)[0] is None


def test_zero_patience():
    """A patience of 0 still allows a second epoch."""
    assert stopping("train_loss", [math.nan, 1.0, 2.0], 0.0, 0)[0] == 3


def test_stop_is_final():
    state, monitor = PatienceState(), make_monitor("train_loss", 0.0, 1)
    for value in (1.0, 2.0):
        stop = monitor.decide(value, 1, False, BestState(), state)
    assert stop and monitor.decide(0.0, 2, False, BestState(), copied(state))


def decisions(metric, values, rules, patience=-1):
    """Returns the reason to stop after each evaluation, at steps 10, 20 and so on."""
    higher = metric.endswith("accuracy")
    monitor = Monitor(named(metric), 0.0, patience, higher_is_better=higher, rules=rules)
    best_so_far, state, found = BestState(), PatienceState(), []
    for index, value in enumerate(values):
        step = 10 * (index + 1)
        monitor.is_best(value, step, best_so_far)
        found.append(monitor.decide(value, step, index == 0, best_so_far, state))
    return found


NONE, PATIENCE, TARGET, BASELINE = StopReason


@pytest.mark.parametrize(
    ("metric", "values", "rules", "patience", "expected"),
    [
        # Stops at the evaluation that reaches the target, also the first, and exactly.
        ("validation_accuracy", [0.5, 0.9], {"target": 0.9}, -1, [NONE, TARGET]),
        ("train_loss", [0.5, 0.1], {"target": 0.5}, -1, [TARGET, TARGET]),
        ("train_loss", [math.nan, 0.4], {"target": 0.5}, -1, [NONE, TARGET]),
        # The baseline is required from its step on, of the best value so far.
        ("validation_accuracy", [0.1, 0.2], {"required": (0.3, 20)}, -1, [NONE, BASELINE]),
        ("validation_accuracy", [0.1, 0.2], {"required": (0.3, 11)}, -1, [NONE, BASELINE]),
        ("validation_accuracy", [0.4, 0.2], {"required": (0.3, 20)}, -1, [NONE, NONE]),
        ("train_loss", [math.nan] * 2, {"required": (0.3, 20)}, -1, [NONE, BASELINE]),
        # Nothing stops before the fewest steps; what has been reached then counts.
        ("train_loss", [0.1, 0.9, 0.9], {"target": 0.5, "min_steps": 30}, -1, [NONE, NONE, TARGET]),
        ("train_loss", [1.0] * 3, {"min_steps": 30}, 1, [NONE, NONE, PATIENCE]),
        ("train_loss", [1.0, 1.0, 0.5], {"min_steps": 30}, 1, [NONE, NONE, NONE]),
        # Reaching the target is named before missing improvement.
        ("train_loss", [0.4, 0.4], {"target": 0.4, "min_steps": 20}, 1, [NONE, TARGET]),
    ],
)
def test_rules(metric, values, rules, patience, expected):
    assert decisions(metric, values, StopRules(**rules), patience) == expected


@pytest.mark.parametrize(
    "metric", ["validation_loss", "validation_accuracy", "train_loss", "train_accuracy"]
)
def test_monitored_value(metric):
    results = {
        "train": {"loss": 1.0, "accuracy": 2.0},
        "validation": {"loss": 3.0, "accuracy": 4.0},
    }
    wanted = {"train_loss": 1, "train_accuracy": 2, "validation_loss": 3, "validation_accuracy": 4}
    assert make_monitor(metric, 0.0, 0).value(results) == wanted[metric]


ONE = ["validation"]


def resolved(monitor, metrics, sets, **options):
    return str(resolve(monitor, metrics, sets, **options))


def test_resolves_monitor():
    assert resolved("auto", ["accuracy"], ONE) == "validation_accuracy"
    assert resolved("auto", [], ONE) == "validation_loss"
    assert resolved("auto", ["accuracy"], []) == "train_loss"
    assert resolved("train_accuracy", ["accuracy"], []) == "train_accuracy"
    assert resolved("validation_loss", [], ONE) == "validation_loss"
    assert resolved("train_gradient_norm", [], [], logged=["gradient_norm"]) == (
        "train_gradient_norm"
    )
    with pytest.raises(ValueError, match=r"--monitor=train_loss_scale: choose one of .*gradient_n"):
        resolve("train_loss_scale", [], [], logged=["gradient_norm"])
    with pytest.raises(ValueError, match=r"--monitor=validation_loss: .*--monitor=train_loss"):
        resolve("validation_loss", ["accuracy"], [])


def test_resolves_named_sets():
    """Any metric of any validation set may be monitored; auto is the first set."""
    sets = ["clean", "clean_b", "noisy"]
    assert resolve("auto", ["accuracy"], sets) == ("clean", "accuracy")
    assert resolve("noisy_accuracy", ["accuracy"], sets) == ("noisy", "accuracy")
    assert resolve("clean_b_loss", ["accuracy"], sets) == ("clean_b", "loss")
    with pytest.raises(ValueError, match=r"--monitor=validation_loss: choose one of auto, clean_"):
        resolve("validation_loss", ["accuracy"], sets)
    with pytest.raises(
        ValueError, match=r"=clean_b_loss: may be b_loss of clean or loss of clean_"
    ):
        resolve("clean_b_loss", ["b_loss"], sets)
