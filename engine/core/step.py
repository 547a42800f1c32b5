"""One training step: gradients of micro-batches, all-reduce, finiteness check, clipping, update.

If a gradient, statistic or metric sum is not finite, no replica updates the model. The same step as
pseudocode: docs/concepts/step.md; the laws L1 to L3 in comments: docs/concepts/laws.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from engine.core import metrics
from engine.core.conditional import conditional_update
from engine.distributed.reduction import Reduction, Tensors, all_reduce
from engine.models.base import ForwardContext, StatisticUpdate
from engine.models.stateless_random import StatelessRNG
from engine.optim import ema
from engine.optim.base import Optimizer
from engine.optim.clipping import Clip
from engine.optim.schedules import Schedule
from engine.tasks.task import Task
from pipelines import Batch


class StepContext(NamedTuple):
    """Step counters and loss scale before a training step."""

    step: tf.Tensor  # int64 [], number of earlier steps
    updates: tf.Tensor  # int64 [], number of earlier steps that updated the weights
    loss_scale: tf.Tensor  # float32 []


class StepResult(NamedTuple):
    """Finiteness and metric sums of a training step; the same on every replica."""

    finite: tf.Tensor  # bool []: whether all values were finite, so that weights were updated
    sums: tf.Tensor  # metrics.step_sums, of metrics.dtype


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Step:
    """A training step in two parts: the gradients of each micro-batch, and the update.

    Both parts are called in replica context, in the graph.
    """

    model: tf.Module
    task: Task
    optimizer: Optimizer  # with slots for the model's trainable variables
    schedule: Schedule
    seed: int
    dtype: tf.DType = tf.float32  # that layers compute in
    scaled: bool = False  # whether the loss scale may differ from 1
    clip: Clip | None = None
    average: tf.Module | None = None  # model with the same variables, which holds their EMA
    ema: float = 0.0  # decay of that EMA
    augment: Callable[[Batch], Batch] | None = None
    synchronise: Reduction = all_reduce  # over the replicas that share a micro-batch: batch norm
    reduce: Reduction = all_reduce  # of gradients, statistics and metric sums
    compiled: bool = False  # whether XLA compiles the step

    def __post_init__(self) -> None:
        self._clip = dataclasses.replace(self.clip or Clip(), compiled=self.compiled)
        self._weights = self.model.trainable_variables
        # A non-trainable variable without an aggregation is frozen.
        self._statistics = [
            variable
            for variable in self.model.variables
            if not variable.trainable and variable.aggregation != tf.VariableAggregation.NONE
        ]
        averaged = self.average.variables if self.average is not None else ()
        self._updated = [*self.model.variables, *self.optimizer.variables, *averaged]

    def zero_accumulators(self) -> Tensors:
        """Returns zeros of the shapes of the tensors that `compute_gradients` returns."""
        variables = [*self._weights, *self._statistics]
        shapes = [*(v.shape for v in variables), *([] for _ in self._statistics)]
        return [*map(tf.zeros, shapes), metrics.zeros(self.task.metrics)]

    def compute_gradients(self, batch: Batch, context: StepContext) -> Tensors:
        """Returns what to sum over micro-batches for `apply_gradients`, float32 tensors.

        In this order: each trainable variable's gradient of the summed losses, times the loss scale
        and divided by the global number of examples; each other variable's sum of weight * value
        over its `StatisticUpdate`s; each such variable's sum of weights; `metrics.masked_sums`.

        Raises:
          ValueError: if the loss does not depend on a trainable variable.
        """
        if self.augment:
            batch = self.augment(batch)
        # L3: randomness is a function of the step and of the row in the global batch.
        forward = ForwardContext(
            training=True,
            mask=batch.mask,
            noise=StatelessRNG(self.seed, context.step, batch.row, compiled=self.compiled),
            dtype=self.dtype,
            all_reduce=self.synchronise,
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            output = self.task(self.model, batch, forward)
            losses = tf.cast(output.losses, tf.float32)
            if forward.penalties:  # L1: added to each row, they count once in the mean
                losses += tf.add_n(forward.penalties)
        weight = batch.mask / batch.valid  # L1: `valid` counts the whole global batch
        self._weighted_loss = output.weights is not None
        if output.weights is not None:  # whose mean `apply_gradients` divides by
            weight *= tf.where(batch.mask > 0, tf.cast(output.weights, tf.float32), 0.0)
        if self.scaled:
            weight *= context.loss_scale
        gradients = tape.gradient(losses, self._weights, output_gradients=weight)
        unused = [w.name for g, w in zip(gradients, self._weights, strict=True) if g is None]
        if unused:
            raise ValueError(f"the loss does not depend on the trainable {', '.join(unused)}")
        # The gradient of an embedding is a tf.IndexedSlices, whose rows are not in order.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        output = output._replace(losses=losses)
        sums = metrics.masked_sums(output, batch.mask, self.task.metrics)
        return [*gradients, *self._weighted(forward.updates), sums]

    def apply_gradients(self, total: Tensors, context: StepContext) -> StepResult:
        """Reduces `total` over the replicas; updates model, slots and EMA if all sums are finite.

        `total` is this replica's sum over its micro-batches of what `compute_gradients` returns.
        """
        # L2: reduce, then check, then apply. Gradients and sums are reduced together.
        *reduced, sums = self.reduce(total)
        gradients, statistics = reduced[: len(self._weights)], reduced[len(self._weights) :]
        if self.scaled:
            gradients = [gradient / context.loss_scale for gradient in gradients]
        if self._weighted_loss:  # L1: the mean weight of the whole global batch
            mean_weight = metrics.mean_weight(sums)
            gradients = [gradient / mean_weight for gradient in gradients]
        gradients, norm = self._clip(gradients)
        # A single infinity or nan makes the sum of all values infinite or nan. All replicas hold
        # the same values, so `finite` is the same on all of them.
        checked = [norm, *map(tf.reduce_sum, statistics), tf.cast(tf.reduce_sum(sums), tf.float32)]
        finite = tf.math.is_finite(tf.add_n(checked))

        def update() -> None:
            learning_rate = self.schedule(context.step)
            self.optimizer.apply(gradients, self._weights, learning_rate, context.updates)
            self._write_statistics(statistics)
            if self.average is not None:
                ema.update_ema(self.average, self.model, self.ema, context.updates)

        conditional_update(finite, update, self._updated, self.compiled)
        return StepResult(finite, metrics.step_sums(sums, norm))

    def _weighted(self, updates: Sequence[StatisticUpdate]) -> Tensors:
        """Returns the sum of weight * value of each statistic, then the sum of weights of each."""
        indices = {id(variable): i for i, variable in enumerate(self._statistics)}
        values = [tf.zeros(variable.shape) for variable in self._statistics]
        weights = [tf.zeros([])] * len(values)
        for variable, value, weight in updates:
            index = indices[id(variable)]
            values[index] += value * weight
            weights[index] += weight
        return [*values, *weights]

    def _write_statistics(self, reduced: Tensors) -> None:
        values, weights = reduced[: len(reduced) // 2], reduced[len(reduced) // 2 :]
        for variable, value, weight in zip(self._statistics, values, weights, strict=True):
            mean = tf.where(weight > 0, value / tf.maximum(weight, 1e-30), variable)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=mean)


def evaluation_step(
    *, model: tf.Module, task: Task, dtype: tf.DType = tf.float32
) -> Callable[[Batch], Tensors]:
    """Returns a function from a Batch to its [`metrics.masked_sums`], for replica context."""

    def metric_sums(batch: Batch) -> Tensors:
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        output = task(model, batch, context)
        if context.penalties:
            output = output._replace(losses=output.losses + tf.add_n(context.penalties))
        return [metrics.masked_sums(output, batch.mask, task.metrics)]

    return metric_sums
