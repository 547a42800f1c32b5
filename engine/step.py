"""One step, as the mathematics reads (L1, L2).

losses             = task(model, piece of the batch)           per example
contribution       = tape of  scale * sum(losses * mask) / valid       valid: of the global batch
gradients, sums    = sum over pieces and replicas              one reduction, before any judgement
gradients          = gradients / scale; good = all finite; clip by the norm of the whole
state              = optimizer(state, gradients, schedule(step))       if good, else as it was
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from engine import metrics
from engine.numerics import averages
from engine.numerics.branches import act_if
from engine.numerics.clipping import Clip
from engine.numerics.reduction import Reduction, Tensors, all_reduce
from engine.optimizers import Optimizer
from engine.schedule import Schedule
from engine.task import Scores, Task
from models import Noise, Pass, Update
from pipelines import Batch


class At(NamedTuple):
    """Where training stands when a step is taken."""

    step: tf.Tensor  # int64 []
    updates: tf.Tensor  # int64 [], steps before this one that moved the weights
    loss_scale: tf.Tensor  # float32 []


class Outcome(NamedTuple):
    """What came of a step, the same on every replica."""

    good: tf.Tensor  # bool []: whether the weights moved
    sums: tf.Tensor  # float32 [4 + metrics]: metrics.step_sums


class Step:
    """A step in two halves: what a piece of the batch contributes, and what all of it does.

    Both are called in replica context, in the graph.

    Args:
      model: its trainable variables move.
      task: gives the loss of each example.
      optimizer: with slots for the model's trainable variables.
      schedule: learning rate of each step.
      seed: of dropout.
      dtype: that layers compute in.
      scaled: whether the loss scale may be another number than 1.
      clip: what is done to a gradient that is too long.
      average: a model of the same variables that follows `model`; None: there is none.
      ema: the decay with which it follows.
      augment: changes what is trained on; None: nothing does.
      synchronise: sums over the replicas that compute one micro-batch together, for batch norm.
      reduce: sums over all that contributed.
      compiled: whether XLA compiles it.
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
        self.rate = schedule
        self._compiled = compiled
        self._model, self._task, self._optimizer = model, task, optimizer
        self._seed, self._dtype, self._scaled = seed, dtype, scaled
        self._clip = dataclasses.replace(clip or Clip(), compiled=compiled)
        self._average, self._ema = average, ema
        self._augment, self._synchronise, self._reduce = augment, synchronise, reduce
        self._weights = model.trainable_variables
        trained = {id(variable) for variable in self._weights}
        self._statistics = [v for v in model.variables if id(v) not in trained]
        self._moved = [
            *model.variables,
            *optimizer.variables,
            *(average.variables if average is not None else ()),
        ]

    def zeros(self) -> Tensors:
        """What nothing contributes."""
        shapes = [
            *(weight.shape for weight in self._weights),
            *(statistic.shape for statistic in self._statistics),
            *([] for _ in self._statistics),
            [metrics.size(self._task.metrics)],
        ]
        return [tf.zeros(shape) for shape in shapes]

    def contribute(self, batch: Batch, at: At) -> Tensors:
        """Gradients, weighted statistics, their weights and metric sums of one piece.

        Raises:
          ValueError: where the loss does not depend on a trainable variable.
        """
        if self._augment:
            batch = self._augment(batch)
        # L3: randomness is a function of the step and of the row in the global batch.
        call = Pass(
            training=True,
            mask=batch.mask,
            noise=Noise(self._seed, at.step, batch.row, compiled=self._compiled),
            dtype=self._dtype,
            all_reduce=self._synchronise,
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            scores = _in_float32(self._task(self._model, batch, call))
        weight = batch.mask / batch.valid  # L1: the global count, never the replica's
        if self._scaled:
            weight *= at.loss_scale
        gradients = tape.gradient(scores.losses, self._weights, output_gradients=weight)
        unused = [w.name for g, w in zip(gradients, self._weights, strict=True) if g is None]
        if unused:
            raise ValueError(f"the loss does not depend on the trainable {', '.join(unused)}")
        sums = metrics.masked_sums(scores, batch.mask)
        return [*gradients, *self._weighted(call.updates), sums]

    def act(self, total: Tensors, at: At) -> Outcome:
        """Reduces, judges, and moves the model if all is well."""
        # L2: reduce, then judge, then act. Gradients and sums go together.
        *reduced, sums = self._reduce(total)
        gradients, statistics = reduced[: len(self._weights)], reduced[len(self._weights) :]
        if self._scaled:
            gradients = [gradient / at.loss_scale for gradient in gradients]
        gradients, norm = self._clip(gradients)
        # An infinity or a nan anywhere makes these sums one. The verdict is of what all replicas
        # share, so it is one verdict.
        parts = [norm, *map(tf.reduce_sum, statistics), tf.reduce_sum(sums)]
        good = tf.math.is_finite(tf.add_n(parts))

        def move() -> None:
            rate = self.rate(at.step)
            self._optimizer.apply(gradients, self._weights, rate, at.updates)
            self._write_statistics(statistics)
            if self._average is not None:
                averages.follow(self._average, self._model, self._ema, at.updates)

        act_if(good, move, self._moved, self._compiled)
        return Outcome(good, metrics.step_sums(sums, norm))

    def _weighted(self, updates: Sequence[Update]) -> Tensors:
        """For each statistic the sum of weight * proposal, then for each the sum of weights."""
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
    """Makes the step of evaluation: Batch -> [its sums], in replica context."""

    def contribute(batch: Batch) -> Tensors:
        scores = task(model, batch, Pass(mask=batch.mask, dtype=dtype))
        return [metrics.masked_sums(_in_float32(scores), batch.mask)]

    return contribute


def _in_float32(scores: Scores) -> Scores:
    """Sums of losses and metrics are taken in float32, whatever the task computed them in."""
    losses, *rest = (tf.cast(part, tf.float32) for part in (scores.losses, *scores.metrics))
    return Scores(losses, tuple(rest))
