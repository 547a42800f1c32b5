"""The devices on which a training loop keeps its loop-carried values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class Placement:
    """Device scopes of the counters, loop-carried values and recorded values of a training loop.

    With early exit, the condition of the loop reads the verdict on each step, so it and all that is
    computed from it are on the host. Otherwise they are on the devices of the replicas.

    Args:
      strategy: strategy of the loop.
      early_exit: whether the loop leaves at a non-finite step.
      compiled: whether XLA compiles the loop, which then has no device scopes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, early_exit: bool, compiled: bool) -> None:
        self._strategy, self._early_exit, self._compiled = strategy, early_exit, compiled

    def on_host(self) -> contextlib.AbstractContextManager:
        """Returns the device scope of counters: the host CPU, or none if XLA compiles the loop."""
        return contextlib.nullcontext() if self._compiled else tf.device("CPU:0")

    def on_device(self) -> contextlib.AbstractContextManager:
        """Returns the device scope of what is recorded: where the first `LoopState` is."""
        if self._early_exit:
            return self.on_host()
        if self._strategy.num_replicas_in_sync == 1:
            return contextlib.nullcontext()  # TensorFlow's default: the GPU, if there is one
        return tf.device(self._strategy.extended.worker_devices[0])

    def beside_verdict(self, function: Callable, *args: Any) -> Any:
        """Calls a function that computes on the values of `LoopState`, where these are.

        With early exit, that is once on the host; otherwise it is in the context of each replica.
        """
        if not self._early_exit:
            return self._strategy.run(function, args=args)
        with self.on_host():
            return function(*args)

    def of_first_replica(self, values: Any) -> Any:
        """Returns the values of the first replica of this worker, for a nest of values."""
        local = self._strategy.experimental_local_results
        return tf.nest.map_structure(lambda each: local(each)[0], values)
