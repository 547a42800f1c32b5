"""Expected memory of a training step, from the lifetimes of the tensors in its graph."""

from __future__ import annotations

from typing import Any

from engine.core import graphs
from engine.core.tensor_memory import peak_bytes


def step_bytes(loop: Any) -> int:
    """Returns the expected peak memory of the tensors of one training step, in bytes.

    These are activations, gradients and temporary tensors of all replicas; variables and the data
    set do not count.

    Args:
      loop: ConcreteFunction of the training loop, as for `graphs.step_body`.

    Raises:
      ValueError: if a dimension is unknown in the graph.
    """
    return peak_bytes(graphs.step_body(loop))
