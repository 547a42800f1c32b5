"""One step, as the mathematics reads (L1, L2).

losses        = task(model, batch)                    per example
gradients     = tape of  sum(losses * mask) / valid   valid: of the global batch
gradients, sums = all_reduce(gradients, sums)         one reduction, before anything is judged
variables     = optimizer(gradients, schedule(step))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine import metrics
from engine.optimizers import Optimizer
from engine.schedule import Schedule
from engine.task import Task
from models import Noise, Pass
from pipelines import Batch

ReplicaStep = Callable[[Batch, tf.Tensor, tf.Tensor], tf.Tensor]


def all_reduce(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums of each tensor over the replicas; call in replica context. One replica: unchanged."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))


def training_step(
    *, model: tf.Module, task: Task, optimizer: Optimizer, schedule: Schedule, seed: int
) -> ReplicaStep:
    """Makes the step that each replica takes.

    Args:
      model: its trainable variables move.
      task: gives the loss of each example.
      optimizer: with slots for the model's trainable variables.
      schedule: learning rate of each step.
      seed: of dropout.

    Returns:
      A function of (Batch, step int64 [], updates int64 []) to be called in replica context,
      which moves the model and gives the global batch's sums, float32 [2 + metrics].
    """
    variables = model.trainable_variables

    def step_on_replica(batch: Batch, step: tf.Tensor, updates: tf.Tensor) -> tf.Tensor:
        # L3: randomness is a function of the step and of the row in the global batch.
        call = Pass(
            training=True,
            mask=batch.mask,
            noise=Noise(seed, step, batch.row),
            all_reduce=all_reduce,
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            scores = task(model, batch, call)
            sums = metrics.masked_sums(scores, batch.mask)
            loss = sums[0] / batch.valid  # L1: the global count, never the replica's
        gradients = tape.gradient(loss, variables)
        _refuse_unused(gradients, variables)
        # L2: reduce, then act. Gradients and sums go together.
        *gradients, sums = all_reduce([*gradients, sums])
        optimizer.apply(gradients, variables, schedule(step), updates)
        for variable, value in call.updates:
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
        return sums

    return step_on_replica


def evaluation_step(*, model: tf.Module, task: Task) -> Callable[[Batch], tf.Tensor]:
    """Makes the step of evaluation: Batch -> the global batch's sums, in replica context."""

    def step_on_replica(batch: Batch) -> tf.Tensor:
        scores = task(model, batch, Pass(mask=batch.mask))
        (sums,) = all_reduce([metrics.masked_sums(scores, batch.mask)])
        return sums

    return step_on_replica


def _refuse_unused(gradients: Sequence[object], variables: Sequence[tf.Variable]) -> None:
    unused = [v.name for g, v in zip(gradients, variables, strict=True) if g is None]
    if unused:
        raise ValueError(f"the loss does not depend on the trainable {', '.join(unused)}")
