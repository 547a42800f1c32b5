"""Learning-rate schedules: pure functions of the step, with no state to save.

Every schedule is `peak * shape(progress)` after a linear warmup, computed in float64 from the step
alone, so that a resumed run and a new one have the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf


class Schedule(Protocol):
    """Interface of a schedule; implement it to add your own."""

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float64 [], of a step, int64 [], counted from 0."""


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float64)


def _cosine(start: float, end: float, fraction: tf.Tensor) -> tf.Tensor:
    """Returns half a cosine from `start` at fraction 0 to `end` at fraction 1."""
    return end + (start - end) * 0.5 * (1.0 + tf.cos(math.pi * fraction))


def constant() -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Returns the shape of a constant learning rate."""
    return lambda step, total: tf.ones_like(step)


def cosine(final_fraction: float) -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Returns half a cosine to `final_fraction` (Loshchilov and Hutter 2017, without restarts)."""
    return lambda step, total: _cosine(1.0, final_fraction, tf.minimum(step / total, 1.0))


def step_decay(rate: float, steps: int) -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Returns `rate ** floor(step / steps)`; 0 steps: a third of the steps after the warmup."""
    base = tf.constant(rate, tf.float64)
    return lambda step, total: tf.pow(base, tf.floor(step / (steps or total / 3)))


def exponential(rate: float, steps: int) -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Returns `rate ** (step / steps)`; 0 steps: a third of the steps after the warmup."""
    base = tf.constant(rate, tf.float64)
    return lambda step, total: tf.pow(base, step / (steps or total / 3))


def one_cycle() -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Returns one cycle (Smith and Topin 2018), in the two phases of PyTorch's OneCycleLR.

    The learning rate rises as half a cosine from 1/25 of the peak over the first 30% of the steps,
    then falls as half a cosine to 1/250,000 of the peak at the last step.
    """

    def shape(step: tf.Tensor, total: float) -> tf.Tensor:
        top = 0.3 * total - 1.0
        last = total - 1.0
        up = _cosine(1 / 25, 1.0, tf.clip_by_value(step / max(top, 1e-9), 0.0, 1.0))
        down = _cosine(1.0, 1 / 250_000, tf.clip_by_value((step - top) / (last - top), 0.0, 1.0))
        return tf.where(step <= top, up, down)

    return shape


def build(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    decay_rate: float = 0.1,
    decay_steps: int = 0,
    final_fraction: float = 0.0,
) -> Schedule:
    """Builds a schedule by name.

    Args:
      name: constant, cosine, step, exponential or one_cycle.
      learning_rate: peak learning rate.
      total_steps: number of steps of the run, warmup included.
      warmup_steps: number of steps in which the learning rate rises linearly, from learning_rate /
        warmup_steps at step 0 to learning_rate at step warmup_steps - 1; the schedule covers the
        steps after.
      decay_rate: base of the power in step and exponential.
      decay_steps: steps of one decay in step and exponential; 0: a third of the steps after the
        warmup.
      final_fraction: last learning rate of cosine, as a fraction of the peak.

    Raises:
      ValueError: for an unknown name, or a warmup that leaves no step.
    """
    shapes = {
        "constant": constant,
        "cosine": lambda: cosine(final_fraction),
        "step": lambda: step_decay(decay_rate, decay_steps),
        "exponential": lambda: exponential(decay_rate, decay_steps),
        "one_cycle": one_cycle,
    }
    if name not in shapes:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(shapes)}")
    if warmup_steps >= total_steps:
        raise ValueError(
            f"--warmup_steps={warmup_steps}: the run has only {total_steps} steps; give fewer"
        )
    shape = shapes[name]()
    left = float(total_steps - warmup_steps)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        rate = learning_rate * shape(_float(step - warmup_steps), left)
        if not warmup_steps:
            return rate
        rising = learning_rate * _float(step + 1) / warmup_steps
        return tf.where(step < warmup_steps, rising, rate)

    return schedule
