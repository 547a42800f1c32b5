"""Variables that stay as they are after a number of updates."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.freezing import FreezeAfter
from engine.optim.lookahead import Lookahead, SlowDecay
from engine.optim.options import OptimizerOptions
from tests.harness import same_bits

NAMES = ("head/kernel", "head/bias", "body/kernel")


def trained(freeze_after, updates=8):
    """Returns the weights after each update, and finally the slots, as arrays."""
    random = np.random.default_rng(0)
    known = {name: tf.Variable(random.normal(size=[3, 2]), dtype=tf.float32) for name in NAMES}
    optimizer = build_optimizer("momentum", weight_decay=0.1, variables=known)
    optimizer = Lookahead(optimizer, 3, SlowDecay(0.5))
    if freeze_after:
        optimizer = FreezeAfter(optimizer, freeze_after, known)
    variables = list(known.values())
    optimizer.create_slots(variables)

    @tf.function
    def update(gradients, number):
        optimizer.apply(gradients, variables, tf.constant(0.1, tf.float64), number)

    found = [[variable.numpy() for variable in variables]]
    for number in range(updates):
        gradients = [tf.constant(random.normal(size=[3, 2]), tf.float32) for _ in variables]
        update(gradients, tf.constant(number, tf.int64))
        found.append([variable.numpy() for variable in variables])
    return found, [slot.numpy() for slot in optimizer.variables]


def test_frozen_after_updates():
    """Up to then all is as without; then the variable has the same bits, whatever moves it."""
    found, _ = trained("head/kernel:4,head/.*:0")
    plain, _ = trained("")
    for number, (ours, theirs) in enumerate(zip(found, plain, strict=True)):
        assert same_bits([ours[0]], [theirs[0]]) == (number <= 4)
        assert same_bits([ours[0]], [found[min(number, 4)][0]])
        assert same_bits([ours[1]], [found[0][1]])
        assert same_bits([ours[2]], [theirs[2]])
    assert not same_bits(found[0][:1], found[4][:1])


@pytest.mark.parametrize("value", ["a", "a:-1", "a:1.5", ":2", "a:1,a:2", "a(:1", "a:inf"])
def test_refused_options(value):
    with pytest.raises(ValueError) as error:
        OptimizerOptions(freeze_after=value)
    assert str(error.value).startswith(f"--freeze_after={value}: ")


def test_unknown_variable():
    with pytest.raises(ValueError, match=r"'tail/[.][*]' matches no trainable variable") as error:
        trained("tail/.*:3")
    assert str(error.value).startswith("--freeze_after=tail/.*:3: ")
