"""The state of one forward pass of a Keras model, which replaced layers read."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.models.base import ForwardContext


class Forward:
    """State of one forward pass of a Keras model; replaced layers get it from `current`.

    Args:
      context: context of the forward pass.
      indices: index of each layer in the model, by `id`.
      rows: number of rows of the micro-batch, int or int32 [].
    """

    def __init__(self, context: ForwardContext, indices: dict[int, int], rows: Any) -> None:
        self.context, self.rows = context, rows
        self.scope: Any = None  # in which Keras variables have values, a keras.StatelessScope
        self.refusals: list[str] = []  # reasons why the model cannot be trained, one line each
        self.weights: dict[int, tf.Tensor] = {}  # of updated statistics, by `id` of the variable
        # Their values of this micro-batch alone, unless a layer is called more than once.
        self.batches: dict[int, tf.Tensor] = {}
        self._indices = indices
        self._calls: collections.Counter[int] = collections.Counter()
        self._row_weights: dict[tuple[int, int], tuple[tf.Tensor, tf.Tensor]] = {}
        self._graph = tf.compat.v1.get_default_graph()

    def again(self, context: ForwardContext, calls: Mapping[int, int]) -> Forward:
        """Returns the forward pass of a second call of a layer, in the graph of the caller.

        Args:
          context: context of the second call.
          calls: result of `calls` before the first call.
        """
        forward = Forward(context, self._indices, self.rows)
        forward._calls.update(calls)
        return forward

    @property
    def calls(self) -> dict[int, int]:
        """Number of calls of each layer that draws random numbers so far, by `id` of the layer."""
        return dict(self._calls)

    def is_inside(self, layer: Any) -> bool:
        """Returns whether the layer is called directly in the graph of the forward pass.

        If not, adds an error message to `refusals`: in a nested graph, such as that of a loop,
        random numbers would repeat, and statistics could not be returned.
        """
        if tf.compat.v1.get_default_graph() is self._graph:
            return True
        self.refusals.append(
            f"{layer.name} ({type(layer).__name__}) is called in a tf.function, loop or condition"
            " of its own: call it outside of that"
        )
        return False

    def stream(self, layer: Any) -> int:
        """Returns the random number stream of a layer's next call, and counts the call.

        No other call in the forward pass has the same stream.
        """
        call = self._calls[id(layer)]
        self._calls[id(layer)] += 1
        return self._indices[id(layer)] + call * len(self._indices)

    def row_weights(self, rank: int, repeats: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns row weights, 1 if valid and 0 for padding, and the number of valid rows.

        Each row of the micro-batch counts as `repeats` consecutive rows. The number is float32 [].
        The weights are float32 [rows * repeats, 1, ...], with `rank` axes; if the context has no
        mask, they are a single 1, with `rank` axes.
        """
        key = rank, repeats
        if key not in self._row_weights:
            mask = self.context.mask
            if mask is None:
                self._row_weights[key] = (
                    tf.ones([1] * rank),
                    tf.cast(self.rows * repeats, tf.float32),
                )
            else:
                repeated = tf.repeat(mask, repeats) if repeats > 1 else mask
                weights = tf.reshape(repeated, [-1] + [1] * (rank - 1))
                self._row_weights[key] = weights, tf.reduce_sum(repeated)
        return self._row_weights[key]

    def repeats(self, x: Any) -> int | None:
        """Returns how often each row of the micro-batch occurs in the first axis of `x`, or None.

        The result is 1 if the length of the axis or the number of rows is not static. It is None
        for a scalar, and for a length that is 0 or not a multiple of the number of rows.
        """
        if x.shape.rank == 0:
            return None
        first, rows = x.shape[0], self.rows
        if isinstance(rows, int) and first is not None:
            return first // rows if first and first % rows == 0 else None
        return 1 if first is None or not isinstance(rows, int) else None


_local = threading.local()  # A strategy calls each replica in a thread of its own.


def current() -> Forward | None:
    """Returns the forward pass that this thread is in; None outside of a forward pass."""
    return getattr(_local, "forward", None)


class entered:  # noqa: N801
    """Context manager that makes a forward pass the one that `current` returns in this thread."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __enter__(self) -> Forward:
        self._outer, _local.forward = current(), self._forward
        return self._forward

    def __exit__(self, *_: Any) -> None:
        _local.forward = self._outer
