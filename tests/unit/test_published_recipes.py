"""Recipes with published settings have these settings, and their patterns select variables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.assembly import factories
from engine.config import flags
from engine.config.schema import option_values
from tapeline import models
from tests.harness import rates_of

ROOT = Path(__file__).parents[2]
EPOCH = 50_000 // 1024  # steps of an epoch of airbench94, which drops the last batch


def parsed(name, *more):
    return flags.parse([f"--flagfile={ROOT / 'recipes' / name}.flags", *more])


def test_airbench94():
    """Its settings, for sums over a batch, as settings for means over a batch of 1,024."""
    found = parsed("cifar10")
    optimizer, schedule = found.optimizer, found.schedule
    kilostep_scale = 1024 * (1 + 1 / (1 - optimizer.momentum))
    assert schedule.learning_rate == pytest.approx(1024 * 11.5 / kilostep_scale, rel=1e-12)
    assert optimizer.weight_decay == pytest.approx(0.0153 / 11.5, rel=1e-5)
    assert optimizer.lookahead_decay == pytest.approx(0.95**5, rel=1e-12)
    assert (optimizer.lookahead, optimizer.lookahead_power) == (5, 3)
    total = int(np.ceil(9.9 * EPOCH))
    assert found.training.train_steps == total - total % 5  # ends with the slow weights
    assert optimizer.freeze_after == f"layers/0/bias:{3 * EPOCH}"
    assert (optimizer.optimizer, optimizer.momentum_of) == ("nesterov", "gradients")
    rates = rates_of(factories.build_schedule(found, total), (0, round(0.23 * total), total))
    np.testing.assert_allclose(rates, [0.3, 1.5, 0.105], rtol=0.005)


def test_quick_is_narrower():
    whole, quick = parsed("cifar10"), parsed("cifar10_quick")
    assert quick.arguments["model.widths"] == (32, 128, 128)
    assert dataclasses.replace(quick, arguments=whole.arguments) == whole


@pytest.mark.parametrize("name", ["cifar10", "cifar10_quick", "cifar10_resnet20"])
def test_groups(name):
    """The decay is that of a group over the learning rate of the group: 1/64 for offsets."""
    found = parsed(name)
    arguments = found.arguments_of("model")
    if name != "cifar10_resnet20":
        arguments["widths"] = (4, 4, 4)
    model = models.build(
        found.model.model, input_shape=(32, 32, 3), output_shape=(10,), seed=0, arguments=arguments
    )
    optimizer = factories.build_optimizer(found, model, 1)
    optimizer.create_slots(model.trainable_variables)
    before = [variable.numpy() + 1 for variable in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    zeros = [tf.zeros(variable.shape) for variable in model.trainable_variables]
    rate, update = tf.constant(1.0, tf.float64), tf.constant(0, tf.int64)
    optimizer.apply(zeros, model.trainable_variables, rate, update)
    momentum = 1.85 if name != "cifar10_resnet20" else 1.0
    factor = 1 - momentum * found.optimizer.weight_decay
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(variable, factor * value, rtol=1e-6)


def test_resnet_20():
    """The settings of He et al. 2016, section 4.2."""
    found = parsed("cifar10_resnet20")
    steps = (0, 31_999, 32_000, 47_999, 48_000, 63_999)
    rates = rates_of(factories.build_schedule(found, found.training.train_steps), steps)
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-12)
    wanted = {
        "train_steps": 64_000,
        "global_batch_size": 128,
        "optimizer": "momentum",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "weight_decay_kind": "coupled",
        "augment": "crop:4:zeros,flip",
        "model": "resnet",
        "model.depth": 20,
    }
    assert {name: option_values(found)[name] for name in wanted} == wanted
