"""Lookahead: the slow weights, and what the wrapped optimizer sees."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.lookahead import Lookahead, SlowDecay

RATE, UPDATES = 0.1, 13


def trained(optimizer):
    """Returns the weights after each update, [updates + 1, 3], and the gradients."""
    variable = tf.Variable([1.0, -2.0, 0.5])
    optimizer.create_slots([variable])
    random = np.random.default_rng(0)
    gradients = random.normal(size=(UPDATES, 3)).astype(np.float32)
    weights = [variable.numpy()]
    for update, gradient in enumerate(gradients):
        optimizer.apply(
            [tf.constant(gradient)],
            [variable],
            tf.constant(RATE, tf.float64),
            tf.constant(update, tf.int64),
        )
        weights.append(variable.numpy())
    return np.stack(weights), gradients


@pytest.mark.parametrize(("period", "power"), [(1, 0.0), (5, 0.0), (5, 3.0), (4, 1.0)])
def test_formula(period, power):
    decay = 0.7
    found, gradients = trained(
        Lookahead(build_optimizer("sgd"), period, SlowDecay(decay, power, UPDATES))
    )
    weight = slow = found[0].astype(np.float64)
    for update, gradient in enumerate(gradients, 1):
        weight = weight - RATE * gradient
        if update % period == 0:
            kept = decay * (update / UPDATES) ** power if power else decay
            weight = slow = kept * slow + (1 - kept) * weight
        np.testing.assert_allclose(found[update], weight, rtol=1e-5, atol=1e-6)


def test_between_synchronisations():
    """The wrapped optimizer is not affected: its slots stay, and so do its first updates."""
    found, _ = trained(Lookahead(build_optimizer("momentum"), 5, SlowDecay(0.7)))
    plain, _ = trained(build_optimizer("momentum"))
    np.testing.assert_array_equal(found[:5], plain[:5])
    assert not np.array_equal(found[5], plain[5])
    steps, plain_steps = np.diff(found, axis=0), np.diff(plain, axis=0)
    np.testing.assert_allclose(steps[5:9], plain_steps[5:9], rtol=1e-4, atol=1e-5)


def test_nothing_kept():
    """With a decay of 0, the weights are those of the optimizer alone, up to rounding."""
    found, _ = trained(Lookahead(build_optimizer("adam"), 2, SlowDecay(0.0)))
    np.testing.assert_allclose(found, trained(build_optimizer("adam"))[0], rtol=1e-6)
