"""Selection of devices: those requested, or replacements with a note."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.distributed.collectives import HostCollectives
from engine.distributed.options import DeviceOptions
from engine.distributed.strategies import choose, set_threads, topologies

ONE, TWO, FOUR = "CPU", "2 virtual CPU devices, mirrored", "4 virtual CPU devices, mirrored"


def options(strategy="auto", virtual=0):
    """Returns options of devices; `topologies` replaces devices where training refuses them."""
    found = DeviceOptions(virtual_devices=virtual)
    object.__setattr__(found, "strategy", strategy)
    return found


@pytest.mark.parametrize(
    ("strategy", "virtual", "home", "many"),
    [
        ("auto", 0, ONE, TWO),
        ("cpu", 0, ONE, TWO),
        ("cpu", 4, FOUR, FOUR),
        ("auto", 4, FOUR, FOUR),
        ("mirrored", 2, TWO, TWO),
    ],
)
def test_one_and_many_devices(strategy, virtual, home, many):
    found = topologies(options(strategy, virtual))
    assert (found.configured.description, found.one.description, found.many.description) == (
        home,
        ONE,
        many,
    )
    assert found.note == ""
    assert found.one.replicas == 1 and not found.many.are_gpus
    assert found.many.replicas == (4 if many == FOUR else 2)


@pytest.mark.parametrize(
    ("strategy", "virtual", "home"),
    [("gpu", 0, ONE), ("gpu", 4, ONE), ("mirrored", 0, TWO)],
)
def test_cpu_replaces_missing_gpu(strategy, virtual, home):
    found = topologies(options(strategy, virtual))
    assert found.configured.description == home
    assert f"--strategy={strategy} asks for a GPU and TensorFlow finds none" in found.note


def test_replicas_replace_other_workers():
    found = topologies(options("multi_worker"))
    assert (found.configured.description, found.one.description, found.many.description) == (
        ONE,
        ONE,
        TWO,
    )
    assert found.note.startswith("--strategy=multi_worker: replicas on this machine stand in")


def test_refuses_more_devices():
    refused = pytest.raises(ValueError, match="--virtual_devices=9: TensorFlow has started")
    with refused:
        topologies(options(virtual=9))
    with refused:
        choose(options(virtual=9), HostCollectives())


def test_refuses_other_threads():
    tf.zeros([])  # starts TensorFlow
    set_threads(0, 0)  # unchanged
    with pytest.raises(ValueError, match="--intra_op_threads=3: TensorFlow has started"):
        set_threads(3, 0)
    with pytest.raises(ValueError, match="--inter_op_threads=3: TensorFlow has started"):
        set_threads(0, 3)
