"""Keeps TensorFlow's graph optimizer from adding in an order that depends on the time."""

from __future__ import annotations

import importlib


def keep_order_of_additions() -> None:
    """Makes graphs that are optimized from now on add three or more tensors in a fixed order.

    If the tensors of a graph take more than 0.8 of what TensorFlow counts as a device's memory,
    256 MiB for a CPU, its memory optimizer replaces each sum of three or more tensors by additions
    to a temporary variable, in the order in which the tensors are ready: the same step then has
    other bits each time. In nested loops, the variable is not found, and the step fails. The
    optimizer is turned off by an option of the session, which TensorFlow 2 has no public name for.
    Other optimizations of graphs remain.
    """
    context = importlib.import_module("tensorflow.python.eager.context").context()
    config = importlib.import_module("tensorflow").compat.v1.ConfigProto()
    if context._config is not None:
        config.CopyFrom(context._config)
    options = config.graph_options.rewrite_options
    options.memory_optimization = options.NO_MEM_OPT
    context._config = config
    context.function_call_options = None  # made again from the configuration when a graph needs it
