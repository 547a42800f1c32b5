"""Collects the rows of a split for the metrics that `tl.metrics.collected` returns.

Each replica writes its rows at their positions in the global batch, and zeros at all other
positions. So the reduction of the metric sums, over micro-batches, replicas and workers, also
collects the rows. Values are added as integers with the same bits; adding zeros does not change
these integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from engine.core.metrics import Metrics, without_padding
from engine.distributed.reduction import Tensors
from engine.runtime.user_code import UserCodeError, described
from engine.tasks.metrics.collection import Collected
from engine.tasks.task import TaskOutput
from pipelines import Batch, Feed

Rows = Mapping[str, Sequence[tf.Tensor]]  # tensors [rows, ...] that each metric collects, by name

_CALL_BYTES = 1 << 24  # size of the rows that one call of the graph returns; at least one step
_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}  # by size in bytes
_CONVERTED = {tf.float16: tf.float32, tf.bfloat16: tf.float32}


def collected_rows(output: TaskOutput, mask: tf.Tensor, metrics: Metrics) -> Rows:
    """Returns the tensors that the collected metrics of a task need from a micro-batch.

    Args:
      output: output of the task for the micro-batch.
      mask: float32 [rows], 1 for an example and 0 for padding.
      metrics: all metrics of the task, by name.

    Returns:
      For each collected metric, by name: the weights, float32 [rows], if the function of the metric
      takes weights; then the arguments of the metric, [rows, ...] each; zeros in padding rows.
    """
    weights = mask if output.weights is None else tf.cast(output.weights, tf.float32)
    return {
        name: [
            without_padding(mask > 0, each)
            for each in (*[weights] * metric.weighted, *output.metrics[name])
        ]
        for name, metric in metrics.items()
        if isinstance(metric, Collected)
    }


class Collection:
    """Collection of the rows of a split, from which the collected metrics of a task are computed.

    For a task without such metrics, `bool` of the collection is False, and the methods return empty
    lists and dicts.

    Args:
      metrics: all metrics of the task, by name.
      feed: feed of the split, in file order.
    """

    def __init__(self, metrics: Metrics, feed: Feed) -> None:
        self._metrics = {n: each for n, each in metrics.items() if isinstance(each, Collected)}
        self._examples, self._layout = feed.examples, feed.layout
        # Both are known once `packed` was traced.
        self._specs: dict[str, list[tf.TensorSpec]] = {}  # of an example, for each metric
        self._shape = (0, 0)  # of what `packed` returns
        self._arrays: list[np.ndarray] = []  # [examples, ...], one for each spec
        self._count = 0  # number of examples in the arrays

    def __bool__(self) -> bool:
        """Returns whether any metric of the task is a `Collected` one."""
        return bool(self._metrics)

    def packed(self, rows: Rows, batch: Batch) -> Tensors:
        """Places the rows of a micro-batch at their positions in the global batch, among zeros.

        Called in the graph. Also records the shapes and dtypes of the rows, which other methods
        need.

        Args:
          rows: result of `collected_rows`.
          batch: micro-batch.

        Returns:
          A list of one tensor, int64 [length, 1 + values]; an empty list without collected metrics.
          The length is the number of rows of the global batch, padding included. The first column
          is the mask. The other columns are the arguments of the collected metrics, one number per
          column, as the integer with the same bits.

        Raises:
          ValueError: if the dtype of an argument is not a number, if its shape is not fully
            defined, or if the arrays of the split would be larger than `max_bytes`.
        """
        if not self:
            return []
        columns = [tf.cast(batch.mask[:, tf.newaxis], tf.int64)]
        for name, tensors in rows.items():
            tensors = [tf.cast(each, _CONVERTED.get(each.dtype, each.dtype)) for each in tensors]
            self._specs[name] = [tf.TensorSpec(each.shape[1:], each.dtype) for each in tensors]
            _check(name, self._specs[name], self._examples, self._metrics[name].max_bytes)
            columns += map(_bits, tensors)
        values = tf.concat(columns, 1)
        rows_here, layout = values.shape[0], self._layout
        length = rows_here * layout.all_shards * layout.micro_batches
        self._shape = (length, values.shape[1])
        # Gathered: TensorFlow has no kernel on a GPU that scatters int64 or adds segments of it.
        sources = tf.range(length, dtype=tf.int64) - batch.row
        here = (sources >= 0) & (sources < rows_here)
        placed = tf.gather(values, tf.clip_by_value(sources, 0, rows_here - 1))
        return [tf.where(here[:, tf.newaxis], placed, tf.zeros([], tf.int64))]

    def zeros(self) -> Tensors:
        """Returns zeros of the shape and dtype of the result of `packed`.

        `packed` must be traced before. Without collected metrics, the list is empty.
        """
        return [tf.zeros(self._shape, tf.int64)] if self else []

    @property
    def max_steps(self) -> int:
        """Maximum number of steps in a call of the graph, 1 or more.

        The maximum bounds the size of the result of a call, which has the rows of each step. It is
        1 << 62 without collected metrics, and before `packed` is traced.
        """
        step_bytes = 8 * math.prod(self._shape)
        return max(1, _CALL_BYTES // step_bytes) if step_bytes else 1 << 62

    def clear(self) -> None:
        """Removes the rows that `add` has collected."""
        self._arrays, self._count = [], 0

    def add(self, steps: Sequence[np.ndarray]) -> None:
        """Adds the rows of consecutive steps.

        Args:
          steps: the results of `packed`, reduced over the replicas and stacked over the steps: a
            list of one array, int64 [steps, length, 1 + values]; not read without collected
            metrics.

        Raises:
          AssertionError: if an example is collected twice.
        """
        if not self:
            return
        (rows,) = (each.reshape(-1, self._shape[1]) for each in steps)
        valid, rows = rows[:, 0], rows[rows[:, 0] > 0, 1:]
        end = self._count + len(rows)
        # L8: a mask of 2 is the sum of two rows.
        assert valid.max() == 1 and end <= self._examples, "evaluation collected an example twice"
        specs = [spec for each in self._specs.values() for spec in each]
        self._arrays = self._arrays or [
            np.empty([self._examples, *spec.shape], spec.dtype.as_numpy_dtype) for spec in specs
        ]
        first = 0
        for array in self._arrays:
            size = math.prod(array.shape[1:])
            bits = rows[:, first : first + size].astype(f"i{array.itemsize}")
            array[self._count : end] = bits.view(array.dtype).reshape(-1, *array.shape[1:])
            first += size
        self._count = end

    def results(self, agree: Callable[[int], int]) -> dict[str, float]:
        """Returns the value of each collected metric by name, and removes the rows.

        Args:
          agree: returns, on every worker, the 64-bit integer that the chief passes.

        Raises:
          UserCodeError: if the function of a metric fails or does not return a number.
          AssertionError: if the rows are not those of all examples of the split.
        """
        assert not self or self._count == self._examples, "evaluation did not collect all examples"
        arrays, results = iter(self._arrays), {}
        for name, metric in self._metrics.items():
            given = [next(arrays) for _ in self._specs[name]]
            try:
                value = np.float64(metric.value(given))
            except Exception as error:
                raise UserCodeError(f"metric {name}: {described(error)}") from error
            results[name] = float(np.int64(agree(int(value.view(np.int64)))).view(np.float64))
        self.clear()
        return results


def _check(name: str, specs: Sequence[tf.TensorSpec], examples: int, max_bytes: int) -> None:
    """Raises ValueError if a metric cannot collect its arguments.

    The reason is a dtype that is not a number, a shape that is not fully defined, or a size above
    `max_bytes`.

    Args:
      name: name of the metric.
      specs: spec of each argument for one example.
      examples: number of examples in the split.
      max_bytes: maximum size of the arguments of all examples, in bytes.
    """
    size = 0
    for spec in specs:
        kind, shape = spec.dtype, spec.shape
        if not (kind.is_floating or kind.is_integer or kind.is_bool):
            raise ValueError(f"metric {name} cannot collect {kind.name}: give numbers")
        if not shape.is_fully_defined():
            raise ValueError(
                f"metric {name} cannot collect values of shape {shape.as_list()}, whose size "
                "is not known: give it a fixed shape"
            )
        size += examples * kind.size * shape.num_elements()
    if size > max_bytes:
        raise ValueError(
            f"metric {name} collects {size:,} bytes of {examples:,} examples, more than "
            f"max_bytes={max_bytes:,}: raise max_bytes of tl.metrics.collected, or collect less"
        )


def _bits(values: tf.Tensor) -> tf.Tensor:
    """Returns the bits of each number as an integer, sign-extended to int64.

    Args:
      values: numbers of any integer, floating or bool dtype of up to 8 bytes, [rows, ...].

    Returns:
      int64 [rows, number of values in a row].
    """
    flat = tf.reshape(values, [values.shape[0], values.shape[1:].num_elements()])
    if flat.dtype.is_bool:
        return tf.cast(flat, tf.int64)
    return tf.cast(tf.bitcast(flat, _INTEGERS[flat.dtype.size]), tf.int64)
