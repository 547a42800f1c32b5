"""The EMA of the weights: its formula on every replica, and its evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import pictures, same_bits, training

DECAY = 0.9


@pytest.mark.parametrize("replicas", [1, 2])
def test_formula_with_warmup(replicas):
    images, labels = pictures(24)
    run = training(images, labels, ema=DECAY, replicas=replicas)
    trained = {variable.name for variable in run.state.model.trainable_variables}
    expected = {v.name: v.numpy().astype(np.float64) for v in run.state.model.variables}
    for turn in range(15):
        run.take(1)
        decay = min(DECAY, (1 + turn) / (10 + turn))
        for variable in run.state.model.variables:
            new = variable.numpy().astype(np.float64)
            name = variable.name
            expected[name] = decay * expected[name] + (1 - decay) * new if name in trained else new
    for variable in run.state.ema.variables:
        np.testing.assert_allclose(variable.numpy(), expected[variable.name], rtol=1e-5, atol=1e-7)
        copies = run.strategy.experimental_local_results(variable)
        assert same_bits([copies[0].numpy()] * len(copies), [copy.numpy() for copy in copies])


def test_decay_after_warmup():
    images, labels = pictures(8)
    run = training(images, labels, ema=0.5).take(9)  # (1 + 8) / (10 + 8) is 0.5
    before = [v.numpy().astype(np.float64) for v in run.state.ema.trainable_variables]
    run.take(1)
    now = [v.numpy() for v in run.state.model.trainable_variables]
    for average, old, new in zip(run.state.ema.trainable_variables, before, now, strict=True):
        np.testing.assert_allclose(average.numpy(), (old + new) / 2, rtol=1e-5, atol=1e-8)


def test_training_is_unchanged():
    """The EMA starts as the weights and does not change training."""
    images, labels = pictures(24)
    plain, averaged = training(images, labels), training(images, labels, ema=DECAY)
    model, average = averaged.state.model, averaged.state.ema
    assert same_bits([v.numpy() for v in model.variables], [v.numpy() for v in average.variables])
    assert same_bits(plain.take(7).weights(), averaged.take(7).weights())


def test_evaluates_ema():
    images, labels = pictures(24)
    state = training(images, labels, ema=DECAY).state
    assert state.scored_model(True) is state.ema
    assert state.scored_model(False) is state.model
    assert training(images, labels).state.scored_model(True) is not None
