"""Collectives of a single worker, and TensorFlow's private settings that several workers need."""

from __future__ import annotations

import inspect

from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context

from engine.distributed.collectives import HostCollectives


def test_single_worker():
    collectives = HostCollectives()
    assert not collectives and collectives.is_chief
    assert collectives.max(7) == collectives.broadcast(7) == 7
    collectives.same("thing", 3)


def test_private_tensorflow_switches():
    """The private settings that `HostCollectives.strategy` turns off exist in this TensorFlow."""
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    assert extended._enable_check_health is True
    assert "_enable_check_health" in inspect.getsource(extended._initialize_multi_worker)
    parameters = inspect.signature(context.Context.configure_coordination_service).parameters
    assert "service_type" in parameters
    assert "service_type" in inspect.getsource(extended._initialize_multi_worker)
    assert callable(context.Context.abort_collective_ops)
