"""Collects the rows of a whole split for the metrics that are no sums, `tl.metrics.collected`.

Each replica puts its rows where they are in the global batch, and zeros elsewhere. So the reduction
of the metric sums, over micro-batches, replicas and workers, also collects the rows. Values are
added as integers of the same bits, which adding zeros does not change.
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
    """Returns what the collected metrics of a task need of a micro-batch; zeros in padding rows.

    These are the weights, float32 [rows], if the metric takes them, and the metric's arguments.
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
    """Collects rows in the graph, and computes the collected metrics of a task from them.

    All methods do nothing for a task without such metrics.
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
        """Returns the rows of a micro-batch at their places in the global batch, among zeros.

        They are a list of one tensor, int64 [length, 1 + values], whose first column is the mask.

        Raises:
          ValueError: if the dtype or shape of an argument does not fit, or for too many bytes.
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
        places = batch.row + tf.range(rows_here, dtype=tf.int64)
        return [tf.math.unsorted_segment_sum(values, places, length)]

    def zeros(self) -> Tensors:
        """Returns zeros of the shape of what `packed` returned, which must have been called."""
        return [tf.zeros(self._shape, tf.int64)] if self else []

    @property
    def max_steps(self) -> int:
        """Maximum number of steps of a call of the graph, which bounds the size of its result."""
        step_bytes = 8 * math.prod(self._shape)
        return max(1, _CALL_BYTES // step_bytes) if step_bytes else 1 << 62

    def clear(self) -> None:
        """Removes all rows."""
        self._arrays, self._count = [], 0

    def add(self, steps: Sequence[np.ndarray]) -> None:
        """Adds the rows of consecutive steps: a list of `packed` of each, int64 [steps, ...]."""
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
        """Returns the value of each metric by name, and removes the rows.

        `agree` returns, on every worker, the integer of 64 bits that the first worker gives.

        Raises:
          UserCodeError: if the function of a metric fails.
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
    """Raises ValueError if a metric cannot collect arguments of these specs, of one example."""
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
    """Returns the bits of numbers [rows, ...] as integers, int64 [rows, values]."""
    flat = tf.reshape(values, [values.shape[0], values.shape[1:].num_elements()])
    if flat.dtype.is_bool:
        return tf.cast(flat, tf.int64)
    return tf.cast(tf.bitcast(flat, _INTEGERS[flat.dtype.size]), tf.int64)
