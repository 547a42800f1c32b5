"""Trains on one batch again and again, to see whether the network can learn it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.core import metrics
from engine.core.task_output import checked, masked_sums
from engine.models.base import ForwardContext
from engine.models.properties import named_variables
from engine.optim.precision import compute_dtype

_LEARNED, _HARDLY = 0.1, 0.95  # fractions of the first loss
_FEW = 20  # number of steps from which a loss that hardly falls is told


class Overfit(NamedTuple):
    """The losses of steps on one batch, and the scores of the batch after the last step."""

    losses: list[float]  # mean loss of each step, up to the first one that is not finite
    scores: dict[str, float | int]  # mean loss and metrics of the batch, in evaluation
    unchanged: list[str]  # names of the trainable variables that the steps did not change

    @property
    def text(self) -> str:
        """Whether the network learned the batch, in a sentence."""
        first, last, steps = self.losses[0], self.losses[-1], len(self.losses)
        fell = f"the loss of one batch went from {first:.4g} to {last:.4g} in {steps} steps"
        if not np.isfinite(last):
            return f"{fell}: it is not finite"
        if last <= _LEARNED * first:
            return f"{fell}: the network learned it"
        if last <= _HARDLY * first:
            return f"{fell}: the network learns it, but has not yet"
        if len(self.losses) < _FEW:
            return f"{fell}, which are too few to tell"
        return f"{fell}: the network does not learn it"

    @property
    def failed(self) -> bool:
        """Whether the loss is not finite, or hardly fell in 20 steps or more."""
        fell = self.losses[-1] <= _HARDLY * self.losses[0] or len(self.losses) < _FEW
        return not (fell and np.isfinite(self.losses[-1]))


def overfit(
    parts: Parts,
    batch: pipelines.Batch,
    steps: int,
    interrupted: Callable[[], bool],
    advance: Callable[[int], None],
) -> Overfit | None:
    """Takes training steps on the data of `parts`, all of which is one batch.

    Args:
      parts: run whose training split is one global batch; its state is changed.
      batch: the batch, preprocessed and not augmented, whose scores are computed at the end.
      steps: number of steps, 1 or more.
      interrupted: returns whether to stop; called before each step.
      advance: called with 1 after each step.

    Returns:
      The losses and scores; None if interrupted.

    Raises:
      StepError: if TensorFlow fails in a step.
    """
    loop = dataclasses.replace(parts.loop, watched=True)
    before = [variable.numpy() for variable in parts.model.trainable_variables]
    losses: list[float] = []
    for _ in range(steps):
        if interrupted():
            return None
        result = loop.run(1)
        losses.append(float(result.losses[0]))
        advance(1)
        if not np.isfinite(losses[-1]):
            break
    pairs = zip(parts.model.trainable_variables, before, strict=True)
    same = {id(v) for v, old in pairs if np.array_equal(v.numpy(), old)}
    named = named_variables(parts.model).items()
    return Overfit(losses, _scores(parts, batch), [name for name, v in named if id(v) in same])


def _scores(parts: Parts, batch: pipelines.Batch) -> dict[str, float | int]:
    task, dtype = parts.task, compute_dtype(parts.config.precision.precision)
    context = ForwardContext(mask=batch.mask, dtype=dtype)

    @tf.function(autograph=False)
    def sums() -> tf.Tensor:
        output = checked(task, task(parts.model, batch, context), batch)
        return masked_sums(task, output, batch)

    return metrics.means(tf.cast(sums(), tf.float64).numpy(), task.metrics)
