"""What several workers rest on in TensorFlow; and one process, which agrees with itself."""

from __future__ import annotations

import inspect

from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context

from engine.workers.crew import Crew


def test_alone_everything_is_agreed():
    crew = Crew()
    assert not crew and crew.is_chief
    assert crew.gather(1, 2) == [[1, 2]]
    assert crew.most(7) == crew.of_chief(7) == 7
    crew.same("thing", 3)


def test_the_private_switches_of_tensorflow_are_where_they_were():
    """`Crew.strategy` turns both off; where one is renamed, that would do nothing, silently."""
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    assert extended._enable_check_health is True
    assert "_enable_check_health" in inspect.getsource(extended._initialize_multi_worker)
    parameters = inspect.signature(context.Context.configure_coordination_service).parameters
    assert "service_type" in parameters
    assert "service_type" in inspect.getsource(extended._initialize_multi_worker)
    assert callable(context.Context.abort_collective_ops)
