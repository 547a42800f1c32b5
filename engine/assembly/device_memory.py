"""Expected memory of a run on each device, and the examples and batches that fit beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

import pipelines
from engine.config.schema import Config
from engine.core.state import TrainState
from engine.core.step import Step, StepContext
from engine.core.tensor_memory import peak_bytes
from engine.runtime.errors import OutOfMemoryError, is_out_of_memory
from engine.runtime.user_code import user_code_location

USABLE = 0.9  # share of a device's memory that tensors can fill: fragments and workspaces remain
_NEGLIGIBLE = 1 / 64  # share of the free memory that data may take without a look at the step
_UNMEASURED = 1 / 4  # share of the free memory for data where the step's memory is not known


class StepMemory(NamedTuple):
    """Expected peak memory of a step's tensors on a device, as a function of its rows, bytes."""

    fixed: float  # for any number of rows, such as gradients
    per_row: float  # of each row of a local micro-batch, such as activations

    def of(self, rows: int) -> int:
        """Returns the expected peak for a number of rows at once, in bytes."""
        return round(self.fixed + self.per_row * rows)


class BatchDivision(NamedTuple):
    """Division of a global batch into the rows that a device computes at once."""

    global_batch_size: int
    accumulate: int  # micro-batches of a global batch
    shards: int  # of a micro-batch, over all devices

    def rows(self, accumulate: int = 0) -> int:
        """Returns the rows of a local micro-batch; `accumulate` 0 stands for the configured."""
        micro_batch = -(-self.global_batch_size // (accumulate or self.accumulate))
        return -(-micro_batch // self.shards)

    def accumulate_for(self, rows: int) -> int | None:
        """Returns the smallest power of 2 above `accumulate` with at most `rows` rows at once.

        The result is None if there is none that leaves each shard an example.
        """
        count = 1 << self.accumulate.bit_length()
        while count * self.shards <= self.global_batch_size:
            if self.rows(count) <= rows:
                return count
            count *= 2
        return None

    def batch_for(self, rows: int) -> int:
        """Returns the global batch size for `rows` rows at once, below the configured; or 0."""
        return min(rows * self.shards * self.accumulate, self.global_batch_size - 1)


def division(config: Config, layout: pipelines.BatchLayout, examples: int) -> BatchDivision:
    """Returns the division of a training batch; a batch has no more rows than the split."""
    size = min(config.training.global_batch_size, examples)
    return BatchDivision(size, layout.micro_batches, layout.all_shards)


def rows_that_fit(limit: int | None, resident: int, step: StepMemory | None, rows: int) -> int:
    """Returns the number of rows that a device can compute at once, where `rows` did not fit.

    The result is at most half of `rows`, whatever is expected, because `rows` did not fit; 0 if
    not even one row is expected to fit.

    Args:
      limit: memory of the device, bytes; None: not known.
      resident: bytes of the model, the optimizer and the data.
      step: expected memory of a step; None: not known.
      rows: rows that did not fit, 1 or more.
    """
    if limit is None or step is None:
        return rows // 2
    room = USABLE * limit - resident - step.fixed
    if room <= 0:
        return 0
    return min(rows // 2, int(room / step.per_row) if step.per_row > 0 else rows)


def data_fits(
    data: int, step: Callable[[], StepMemory | None], rows: int, free: int | None
) -> bool:
    """Returns whether a device has room for the decoded examples beside a step.

    Args:
      data: bytes of the decoded examples.
      step: returns the expected memory of a step; None: not known. It is called only if the data
        takes more than a negligible share of the free memory.
      rows: rows of a local micro-batch.
      free: free memory of the device, with the model in it, bytes; None: not limited or not known.
    """
    if free is None or data <= _NEGLIGIBLE * free:
        return True
    expected = step()
    if expected is None:
        return data <= _UNMEASURED * free
    return data + expected.of(rows) <= USABLE * free


def size(count: float) -> str:
    """Formats a number of bytes, such as "3.4 MiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"


def module_bytes(module: tf.Module | None) -> int:
    """Returns the size of all variables of a module in bytes; 0 for None."""
    variables = () if module is None else module.variables
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


def step_memory(
    compute: Callable[[pipelines.Batch], Any],
    source: pipelines.Source,
    rows: int,
    *,
    next_example: bool = False,
) -> StepMemory | None:
    """Traces a step with 1 row and with `rows`; returns its expected memory, without running it.

    The memory for fewer rows is at most what the result says. None if a size is not known from the
    graph, or the step cannot be traced, which an error in a user's code may cause: the trace of the
    loop reports it.

    Args:
      compute: computes a local micro-batch; it is traced for a single replica.
      source: data set, whose decoded examples make the batch.
      rows: rows of a local micro-batch.
      next_example: whether a micro-batch has one more row of inputs and targets.
    """
    most, more = max(2, rows), int(next_example)
    try:
        low, high = (_peak(compute, source, count, more) for count in (1, most))
    except Exception:
        return None
    # The peak is a convex function of the rows, the largest of the sums at each operation, so that
    # the line through two points is at least the peak of any number of rows between them.
    per_row = max(0.0, (high - low) / (most - 1))
    return StepMemory(max(0.0, high - per_row * most), per_row)


def replaced_bytes(state: TrainState, *, early_exit: bool, jit: str) -> int:
    """Returns the size of the old values that an update keeps on each device, in bytes.

    Where the loop does not leave early, a step keeps the old values of all variables that it
    updates until it has selected between old and new ones, unless XLA compiles it; see `Loop`,
    which has the arguments.
    """
    if early_exit or jit != "off":
        return 0
    return sum(map(module_bytes, (state.model, state.optimizer, state.ema)))


def training_memory(
    step: Step,
    source: pipelines.Source,
    rows: int,
    next_example: bool,
    replaced: int = 0,
) -> StepMemory | None:
    """Returns the expected memory of a training step; `replaced` is that of its update.

    Otherwise as `step_memory`.
    """
    memory = step_memory(gradients_of(step), source, rows, next_example=next_example)
    return memory and memory._replace(fixed=memory.fixed + replaced)


def batch_spec(source: pipelines.Source, rows: int, more: int = 0) -> pipelines.Batch:
    """Returns the `TensorSpec`s of a local micro-batch of decoded examples.

    Args:
      source: data set.
      rows: rows of the micro-batch.
      more: number of further rows of inputs and targets.
    """
    inputs, targets = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([rows + more, *leaf.shape], leaf.dtype), source.decoded
    )
    integer, real = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.float32)
    mask = tf.TensorSpec([rows], tf.float32)
    return pipelines.Batch(inputs, targets, mask, integer, real, integer, integer)


def gradients_of(step: Step) -> Callable[[pipelines.Batch], Any]:
    """Returns a function of a micro-batch alone, for a trace of `Step.compute_gradients`."""

    def compute(batch: pipelines.Batch) -> Any:
        return step.compute_gradients(batch, StepContext(batch.epoch, batch.epoch, batch.valid))

    return compute


@contextlib.contextmanager
def memory_for(advice: str) -> Iterator[None]:
    """Raises an `OutOfMemoryError` with `advice` if a device runs out of memory in the block.

    Raises:
      OutOfMemoryError: instead of TensorFlow's error; the message names the user's line, if any.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not is_out_of_memory(error):
            raise
        where = "".join(f"{each}: " for each in [user_code_location(error)] if each)
        raise OutOfMemoryError(
            f"cannot set the run up: {where}{pipelines.reason(error)}: out of memory: {advice}"
        ) from error


def _peak(
    compute: Callable[[pipelines.Batch], Any],
    source: pipelines.Source,
    rows: int,
    more: int,
) -> float:
    """Returns the expected peak memory of `compute` on each replica; arguments as `step_memory`."""
    batch = batch_spec(source, rows, more)
    return peak_bytes(tf.function(compute, autograph=False).get_concrete_function(batch).graph)
