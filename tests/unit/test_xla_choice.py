"""What `--jit=auto` chooses, as a table, and what `--jit=step` compiles."""

from __future__ import annotations

import keras
import pytest

from engine.core import xla
from engine.core.xla import Conditions
from engine.distributed.strategies import Devices
from engine.models.keras_adapter import keras_model
from engine.tasks.classification import Classification
from engine.verify.fault_injection import FaultInjectingTask
from tapeline import models
from tests.harness import strategy_of

CPU = Conditions(
    on_gpu=False, replicas=1, shards=0, augments=False, parts="own", convolutions=False
)
GPU = CPU._replace(on_gpu=True)


@pytest.mark.parametrize(
    ("conditions", "jit"),
    [
        (CPU, "loop"),
        (CPU._replace(convolutions=True), "off"),
        (CPU._replace(parts="keras"), "loop"),
        (CPU._replace(parts="keras", convolutions=True), "off"),
        (CPU._replace(parts="foreign"), "loop"),
        (CPU._replace(parts="foreign", obstacle="an operation"), "off"),
        (CPU._replace(parts="own", obstacle="a precision"), "off"),
        (CPU._replace(parts="foreign", augments=True), "off"),
        (CPU._replace(augments=True), "off"),
        (CPU._replace(shards=1), "off"),
        (CPU._replace(replicas=2), "off"),
        (GPU, "step"),
        (GPU._replace(convolutions=True), "step"),
        (GPU._replace(parts="keras", convolutions=True), "step"),
        (GPU._replace(parts="foreign"), "off"),
        (GPU._replace(augments=True), "off"),
        (GPU._replace(shards=4), "off"),
        (GPU._replace(replicas=2), "off"),
    ],
    ids=str,
)
def test_automatic(conditions, jit):
    assert xla.automatic(conditions).jit == jit


class Foreign(models.Flatten):
    """A user-defined layer."""


class Mine(Classification):
    """A user-defined task."""


def network(*layers):
    return models.Sequential("some", [*layers, models.Dense(2)], (8, 8, 1), seed=0)


def of_keras(*layers):
    return keras_model(keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    ("make", "jit"),
    [
        (lambda: network(models.Convolution(2), models.MaxPool(), models.Flatten()), "step"),
        (lambda: network(Foreign()), "off"),
        (lambda: of_keras(keras.layers.MaxPooling2D(), keras.layers.Flatten()), "step"),
        (lambda: of_keras(keras.layers.Lambda(lambda x: x), keras.layers.Flatten()), "off"),
    ],
)
def test_auto_on_gpu(make, jit):
    """On a GPU, `auto` compiles networks of Tapeline's and Keras's layers only."""
    gpu = Devices(strategy_of(1), "a GPU")
    found = xla.choose("auto", gpu, make(), [Classification()], shards=0, augments=False)
    assert found.jit == jit


@pytest.mark.parametrize(
    ("model", "task", "asked"),
    [
        (network(models.Flatten()), Classification(), [True]),
        (network(Foreign()), Classification(), [False]),
        (network(models.Flatten()), FaultInjectingTask(Mine()), [False]),
        (network(models.Convolution(2), Foreign()), Classification(), []),
    ],
)
def test_auto_on_cpu(model, task, asked):
    """On a CPU, the step is examined where the choice depends on it."""
    calls = []
    cpu = Devices(strategy_of(1), "a CPU")

    def obstacle(own):
        calls.append(own)
        return "an operation"

    found = xla.choose("auto", cpu, model, [task], shards=0, augments=False, obstacle=obstacle)
    assert calls == asked and (found.why == "an operation") == bool(asked)


def test_when_gradients_are_compiled():
    """`--jit=step` compiles the gradients unless statistics are reduced over replicas."""
    normed, plain = network(models.BatchNorm(), models.Flatten()), network(models.Flatten())
    assert xla.compiles_gradients(normed, 1, 0) and xla.compiles_gradients(normed, 2, 4)
    assert not xla.compiles_gradients(normed, 2, 0) and xla.compiles_gradients(plain, 2, 0)
