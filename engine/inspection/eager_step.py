"""Runs the first training step of a network eagerly: losses, gradients and what they depend on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.core.task_output import checked
from engine.inspection.eager_trace import EagerTrace, ModuleCall
from engine.models import properties
from engine.models.base import ForwardContext
from engine.models.stateless_random import StatelessRNG
from engine.optim.precision import compute_dtype


class EagerStep(NamedTuple):
    """Record of the losses of a batch in training, and of the gradients of their mean."""

    trace: EagerTrace
    modules: list[ModuleCall]  # calls of modules in evaluation
    losses: tf.Tensor  # float32 [rows]
    gradients: dict[int, tf.Tensor | None]  # by `id` of the trainable variable

    @property
    def finite(self) -> bool:
        """Whether all losses and gradients are finite."""
        tensors = [self.losses, *(g for g in self.gradients.values() if g is not None)]
        return all(np.isfinite(tf.convert_to_tensor(t).numpy()).all() for t in tensors)


def eager_step(parts: Parts, batch: pipelines.Batch) -> EagerStep:
    """Computes the losses of a batch in training and the gradients of their mean, and records how.

    Args:
      parts: run on one device, whose weights are used and not changed.
      batch: augmented and preprocessed batch.

    Raises:
      ValueError: if the output of the task is invalid.
      Exception: any that the user's model or task raises.
    """
    model, weights = parts.model, parts.model.trainable_variables
    trace = EagerTrace(properties.named_modules(model), properties.named_variables(model))
    context = _training(parts, batch)
    with trace.recorded():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            losses = _losses(parts, batch, context)
            mean = tf.reduce_mean(losses)
        found = tape.gradient(mean, weights)
    # In training, a convolution and the max pool after it are not called one after the other.
    evaluated = EagerTrace(properties.named_modules(model), {})
    with evaluated.recorded():
        _losses(parts, batch, ForwardContext(mask=batch.mask, dtype=_dtype(parts)))
    gradients = dict(zip(map(id, weights), found, strict=True))
    return EagerStep(trace, evaluated.modules, losses, gradients)


def depends_on_inputs(parts: Parts, batch: pipelines.Batch) -> bool:
    """Returns whether the losses of a batch change when the rows of its inputs are exchanged.

    The losses are those of training, with the same random numbers: in evaluation, the first
    statistics of a deep network can make all outputs 0. True also if the batch has a single row, or
    equal inputs in all rows, or losses that are not finite.
    """
    rolled = tf.nest.map_structure(lambda leaf: tf.roll(leaf, 1, 0), batch.inputs)
    pairs = zip(tf.nest.flatten(batch.inputs), tf.nest.flatten(rolled), strict=True)
    if all(np.array_equal(one.numpy(), other.numpy()) for one, other in pairs):
        return True
    one, other = (
        _losses(parts, batch._replace(inputs=inputs), _training(parts, batch)).numpy()
        for inputs in (batch.inputs, rolled)
    )
    return not np.isfinite(one).all() or not np.array_equal(one, other)


def _training(parts: Parts, batch: pipelines.Batch) -> ForwardContext:
    """Returns the context of a forward pass of the first training step."""
    noise = StatelessRNG(parts.config.run.seed, tf.constant(0, tf.int64), batch.row)
    return ForwardContext(True, batch.mask, noise, _dtype(parts))


def _losses(parts: Parts, batch: pipelines.Batch, context: ForwardContext) -> tf.Tensor:
    """Returns the losses of a batch with the penalties of the model, float32 [rows]."""
    task = parts.task
    output = checked(task, task(parts.model, batch, context), batch)
    losses = tf.cast(output.losses, tf.float32)
    if context.penalties:
        losses += tf.add_n(context.penalties)
    return losses


def _dtype(parts: Parts) -> tf.DType:
    return compute_dtype(parts.config.precision.precision)
