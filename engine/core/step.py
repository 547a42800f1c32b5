"""Computes one training step (L1, L2).

losses             = task(model, micro-batch)                  one loss per example
gradients          = gradients of scale * sum(losses * mask) / valid   valid: of the global batch
gradients, sums    = sums over micro-batches and replicas      one reduction, before any check
gradients          = clip(gradients / scale); finite = all values are finite
state              = optimizer(state, gradients, schedule(step))       if finite, else unchanged
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
from engine.tasks.classification import Scores, Task
from pipelines import Batch


class StepContext(NamedTuple):
    """The loop's counters and the loss scale before a step."""

    step: tf.Tensor  # int64 []
    updates: tf.Tensor  # int64 [], number of earlier steps that updated the weights
    loss_scale: tf.Tensor  # float32 []


class StepResult(NamedTuple):
    """The result of a step, the same on every replica."""

    finite: tf.Tensor  # bool []: whether all values were finite, so that weights were updated
    sums: tf.Tensor  # float32 [4 + metrics]: metrics.step_sums


class Step:
    """Computes a step in two parts: the gradients of each micro-batch, and the update.

    Both parts are called in replica context, in the graph.

    Args:
      model: model whose trainable variables are updated.
      task: task, which computes the loss of each example.
      optimizer: optimizer with slots for the model's trainable variables.
      schedule: learning rate schedule: step -> learning rate.
      seed: seed of the run, for dropout.
      dtype: dtype that layers compute in.
      scaled: whether the loss scale may differ from 1.
      clip: gradient clipping; None: no clipping.
      average: model with the same variables, which holds their EMA; None: no EMA.
      ema: decay of that EMA.
      augment: augmentation, a function Batch -> Batch; None: no augmentation.
      synchronise: reduction over the replicas that share a micro-batch, for batch norm.
      reduce: reduction of gradients, statistics and metric sums over replicas and shards.
      compiled: whether XLA compiles the step.
    """

    def __init__(
        self,
        *,
        model: tf.Module,
        task: Task,
        optimizer: Optimizer,
        schedule: Schedule,
        seed: int,
        dtype: tf.DType = tf.float32,
        scaled: bool = False,
        clip: Clip | None = None,
        average: tf.Module | None = None,
        ema: float = 0.0,
        augment: Callable[[Batch], Batch] | None = None,
        synchronise: Reduction = all_reduce,
        reduce: Reduction = all_reduce,
        compiled: bool = False,
    ) -> None:
        self.learning_rate = schedule
        self._compiled = compiled
        self._model, self._task, self._optimizer = model, task, optimizer
        self._seed, self._dtype, self._scaled = seed, dtype, scaled
        self._clip = dataclasses.replace(clip or Clip(), compiled=compiled)
        self._average, self._ema = average, ema
        self._augment, self._synchronise, self._reduce = augment, synchronise, reduce
        self._weights = model.trainable_variables
        trained = {id(variable) for variable in self._weights}
        self._statistics = [v for v in model.variables if id(v) not in trained]
        self._updated = [
            *model.variables,
            *optimizer.variables,
            *(average.variables if average is not None else ()),
        ]

    def zero_accumulators(self) -> Tensors:
        """Returns zeros of the shapes of the tensors that `compute_gradients` returns."""
        shapes = [
            *(weight.shape for weight in self._weights),
            *(statistic.shape for statistic in self._statistics),
            *([] for _ in self._statistics),
            [metrics.size(self._task.metrics)],
        ]
        return [tf.zeros(shape) for shape in shapes]

    def compute_gradients(self, batch: Batch, at: StepContext) -> Tensors:
        """Returns gradients, weighted statistics, their weights and metric sums of a micro-batch.

        Raises:
          ValueError: if the loss does not depend on a trainable variable.
        """
        if self._augment:
            batch = self._augment(batch)
        # L3: randomness is a function of the step and of the row in the global batch.
        context = ForwardContext(
            training=True,
            mask=batch.mask,
            noise=StatelessRNG(self._seed, at.step, batch.row, compiled=self._compiled),
            dtype=self._dtype,
            all_reduce=self._synchronise,
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            scores = _in_float32(self._task(self._model, batch, context))
        weight = batch.mask / batch.valid  # L1: `valid` counts the whole global batch
        if self._scaled:
            weight *= at.loss_scale
        gradients = tape.gradient(scores.losses, self._weights, output_gradients=weight)
        unused = [w.name for g, w in zip(gradients, self._weights, strict=True) if g is None]
        if unused:
            raise ValueError(f"the loss does not depend on the trainable {', '.join(unused)}")
        sums = metrics.masked_sums(scores, batch.mask)
        return [*gradients, *self._weighted(context.updates), sums]

    def apply_gradients(self, total: Tensors, at: StepContext) -> StepResult:
        """Reduces the sums over replicas; updates the model if all values are finite.

        Args:
          total: this replica's sums over its micro-batches of what `compute_gradients` returns.
          at: the loop's counters and the loss scale before the step.
        """
        # L2: reduce, then check, then apply. Gradients and sums are reduced together.
        *reduced, sums = self._reduce(total)
        gradients, statistics = reduced[: len(self._weights)], reduced[len(self._weights) :]
        if self._scaled:
            gradients = [gradient / at.loss_scale for gradient in gradients]
        gradients, norm = self._clip(gradients)
        # A single infinity or nan makes the sum of all values infinite or nan. All replicas hold
        # the same values, so `finite` is the same on all of them.
        checked = [norm, *map(tf.reduce_sum, statistics), tf.reduce_sum(sums)]
        finite = tf.math.is_finite(tf.add_n(checked))

        def update() -> None:
            learning_rate = self.learning_rate(at.step)
            self._optimizer.apply(gradients, self._weights, learning_rate, at.updates)
            self._write_statistics(statistics)
            if self._average is not None:
                ema.update_ema(self._average, self._model, self._ema, at.updates)

        conditional_update(finite, update, self._updated, self._compiled)
        return StepResult(finite, metrics.step_sums(sums, norm))

    def _weighted(self, updates: Sequence[StatisticUpdate]) -> Tensors:
        """Returns each statistic's sum of weight * value, then each statistic's sum of weights."""
        places = {id(variable): place for place, variable in enumerate(self._statistics)}
        values = [tf.zeros(variable.shape) for variable in self._statistics]
        weights = [tf.zeros([])] * len(values)
        for variable, value, weight in updates:
            place = places[id(variable)]
            values[place] += value * weight
            weights[place] += weight
        return [*values, *weights]

    def _write_statistics(self, reduced: Tensors) -> None:
        count = len(self._statistics)
        for variable, value, weight in zip(
            self._statistics, reduced[:count], reduced[count:], strict=True
        ):
            mean = tf.where(weight > 0, value / tf.maximum(weight, 1e-30), variable)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=mean)


def evaluation_step(
    *, model: tf.Module, task: Task, dtype: tf.DType = tf.float32
) -> Callable[[Batch], Tensors]:
    """Returns the evaluation step: a function Batch -> [its metric sums], for replica context."""

    def sums_of(batch: Batch) -> Tensors:
        scores = task(model, batch, ForwardContext(mask=batch.mask, dtype=dtype))
        return [metrics.masked_sums(_in_float32(scores), batch.mask)]

    return sums_of


def _in_float32(scores: Scores) -> Scores:
    """Casts losses and metrics to float32, in which they are summed."""
    losses, *rest = (tf.cast(part, tf.float32) for part in (scores.losses, *scores.metrics))
    return Scores(losses, tuple(rest))
