"""On which devices: what was asked for, or what stands in for it and says so."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.distribute import choose, set_threads, topologies
from engine.workers.crew import Crew

ONE, TWO, FOUR = "CPU", "2 virtual CPU devices, mirrored", "4 virtual CPU devices, mirrored"


@pytest.mark.parametrize(
    ("strategy", "virtual", "home", "many"),
    [
        ("auto", 0, ONE, TWO),
        ("cpu", 0, ONE, TWO),
        ("cpu", 4, ONE, FOUR),
        ("auto", 4, FOUR, FOUR),
        ("mirrored", 2, TWO, TWO),
    ],
)
def test_one_device_and_several_stand_ready(strategy, virtual, home, many):
    found = topologies(strategy, virtual)
    assert (found.home.words, found.one.words, found.many.words) == (home, ONE, many)
    assert found.note == ""
    assert found.one.replicas == 1 and not found.many.are_gpus
    assert found.many.replicas == (4 if many == FOUR else 2)


@pytest.mark.parametrize(
    ("strategy", "virtual", "home"),
    [("gpu", 0, ONE), ("gpu", 4, ONE), ("mirrored", 0, TWO)],
)
def test_where_there_is_no_gpu_the_cpu_stands_in_and_it_says_so(strategy, virtual, home):
    found = topologies(strategy, virtual)
    assert found.home.words == home
    assert f"--strategy={strategy} asks for a GPU and TensorFlow finds none" in found.note


def test_for_other_machines_the_devices_of_this_one_stand_in_and_it_says_so():
    found = topologies("multi_worker", 0)
    assert (found.home.words, found.one.words, found.many.words) == (ONE, ONE, TWO)
    assert found.note.startswith("--strategy=multi_worker: replicas on this machine stand in")


def test_more_devices_than_tensorflow_started_with_are_refused():
    refused = pytest.raises(ValueError, match="--virtual_devices=9: TensorFlow has started")
    with refused:
        topologies("auto", 9)
    with refused:
        choose("auto", 9, Crew())


def test_other_threads_than_tensorflow_started_with_are_refused():
    tf.zeros([])  # it has started
    set_threads(0, 0)  # as it is
    with pytest.raises(ValueError, match="--intra_op_threads=3: TensorFlow has started"):
        set_threads(3, 0)
    with pytest.raises(ValueError, match="--inter_op_threads=3: TensorFlow has started"):
        set_threads(0, 3)
