"""Says what to reduce when a device runs out of memory, and the batch that is expected to fit."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

import pipelines
from engine.assembly import run_directory
from engine.assembly.device_memory import (
    BatchDivision,
    StepMemory,
    division,
    module_bytes,
    replaced_bytes,
    rows_that_fit,
    size,
    step_memory,
    training_memory,
)
from engine.assembly.parts import Parts
from engine.distributed import gpus
from engine.models import properties
from engine.runtime.errors import EvaluationError, OutOfMemoryError, StepError, is_out_of_memory


class Usage(NamedTuple):
    """Expected use of the memory of each device, bytes."""

    limit: int | None  # memory of the device; None: not known
    weights: int
    slots: int  # of the optimizer
    ema: int
    data: int  # decoded examples; 0: they are streamed
    step: StepMemory | None  # None: not known

    @property
    def resident(self) -> int:
        """What is in memory between two steps."""
        return self.weights + self.slots + self.ema + self.data

    @property
    def data_counts(self) -> bool:
        """Whether the decoded examples take more than a negligible part."""
        return self.data > 0.02 * (self.resident if self.limit is None else self.limit)

    def described(self, rows: int) -> str:
        """Returns text about the use of a step of `rows` rows at once."""
        named = {"weights": self.weights, "optimizer": self.slots, "EMA": self.ema}
        named["data"] = self.data
        total, expected = self.resident, "at least "
        if self.step is not None:
            named["activations and gradients"] = self.step.of(rows)
            total, expected = total + self.step.of(rows), "about "
        parts = ", ".join(f"{name} {size(n)}" for name, n in named.items() if n)
        of = "" if self.limit is None else f" of {size(self.limit)}"
        return f"{rows:,} rows at a time take {expected}{size(total)}{of} ({parts})"


def training_advice(
    division: BatchDivision, usage: Usage, *, trained: bool, statistics: bool = False
) -> str:
    """Returns what to do when a training step does not fit, as text without a full stop.

    Args:
      division: division of a global batch.
      usage: expected use of the memory.
      trained: whether the run has a checkpoint of a step after 0, and so keeps its batch.
      statistics: whether the model has statistics of a micro-batch, as of batch norm.
    """
    rows = division.rows()
    fit = rows_that_fit(usage.limit, usage.resident, usage.step, rows)
    accumulate, batch = division.accumulate_for(fit), division.batch_for(fit)
    advice = [usage.described(rows)]
    if fit and accumulate:
        same = "the same mathematics, but batch norm sees its micro-batch"
        advice.append(
            f"give --accumulate={accumulate}, which computes {division.rows(accumulate):,} rows at "
            f"a time with {same if statistics else 'the same mathematics'}"
            + (f", or --global_batch_size={batch}" if batch else "")
        )
    elif fit and batch:
        advice.append(f"give --global_batch_size={batch}")
    else:
        advice.append("a single row does not fit: give a smaller model or smaller inputs")
    if usage.data_counts:
        advice.append(f"--feed=stream frees {size(usage.data)} and changes no result")
    if trained:
        advice.append(
            "the last checkpoint is kept: the same command resumes it once there is memory, "
            f"{'or with --feed=stream, ' if usage.data_counts else ''}and another batch is another "
            "--run_dir"
        )
    else:
        advice.append("no step was lost: run the same command with one of these")
    return "; ".join(advice)


def evaluation_advice(batch_size: int, replicas: int, usage: Usage) -> str:
    """Returns what to do when a step of an evaluation does not fit, as text.

    Args:
      batch_size: examples of a step of the evaluation, over all replicas.
      replicas: number of replicas.
      usage: expected use of the memory, where `step` is of an evaluation.
    """
    rows = -(-batch_size // replicas)
    fit = rows_that_fit(usage.limit, usage.resident, usage.step, rows)
    advice = [usage.described(rows)]
    if fit:
        advice.append(
            f"give --evaluation_batch_size={min(fit * replicas, batch_size - 1)}, which changes "
            "no result"
        )
    else:
        advice.append("a single row does not fit: give a smaller model or smaller inputs")
    if usage.data_counts:
        advice.append(f"--feed=stream frees {size(usage.data)}")
    advice.append("the last checkpoint is kept: run the same command with one of these to resume")
    return "; ".join(advice)


def explained(
    error: StepError | EvaluationError, parts: Parts, *, limit: int | None = None
) -> OutOfMemoryError | None:
    """Returns the error to raise for a step that does not fit in memory; None for other errors.

    Args:
      error: error of a training step or an evaluation.
      parts: the run, whose checkpoints have all been written.
      limit: memory of each device, bytes; None: as measured, if it can be.
    """
    if not is_out_of_memory(error):
        return None
    config, source, strategy = parts.config, parts.source, parts.strategy
    if limit is None and tf.config.list_logical_devices("GPU"):
        limit = gpus.memory_limit(config.devices.gpu_memory_mb)
    elif limit is None:  # the replicas share the memory of the host
        limit = pipelines.available_memory() // strategy.num_replicas_in_sync
    if isinstance(error, StepError):
        layout, mixes = parts.feeds.training.layout, False
        if augmentation := pipelines.augmentation_of(config.data.augment, source):
            mixes = augmentation.mixes
        divided = division(config, layout, len(source.train))
        loop = parts.loop
        replaced = replaced_bytes(parts.state, early_exit=loop.early_exit, jit=loop.jit)
        memory = training_memory(loop.step, source, divided.rows(), mixes, replaced)
        advice = training_advice(
            divided,
            _usage(parts, limit, memory),
            trained=run_directory.is_trained(config.run.run_dir),
            statistics=bool(properties.statistics(parts.model)),
        )
    else:
        evaluation, replicas = next(iter(parts.evaluations.values())), strategy.num_replicas_in_sync
        batch_size = min(config.training.evaluation_batch_size, error.examples)
        memory = step_memory(evaluation.step, source, -(-batch_size // replicas))
        if memory is not None:
            memory = StepMemory(*(evaluation.overlapping * each for each in memory))
        advice = evaluation_advice(batch_size, replicas, _usage(parts, limit, memory))
    return OutOfMemoryError(f"{error}: out of memory: {advice}")


def _usage(parts: Parts, limit: int | None, step: StepMemory | None) -> Usage:
    state = parts.state
    return Usage(
        limit=limit,
        weights=module_bytes(state.model),
        slots=module_bytes(state.optimizer),
        ema=module_bytes(state.ema),
        data=parts.data_bytes if parts.feed_kind == "resident" else 0,
        step=step,
    )
