"""Learning-rate schedules: pure functions of the step, with no state to save.

Every schedule is `peak * shape(step)` after a linear warmup. It is computed in float64 from the
step only, so that the learning rates of resumed and uninterrupted runs are bitwise identical. A
factory of `SCHEDULES` returns a shape: a function that maps the number of steps since the end of
the warmup, float64 [], to a factor, float64 []. The arguments of a factory are the options of the
same names and `total_steps`, the number of steps after the warmup.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from engine.config.registry import parameters
from engine.optim.registry import SCHEDULES

Shape = Callable[[tf.Tensor], tf.Tensor]


class Schedule(Protocol):
    """Interface of a learning-rate schedule."""

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float64 [], at a step, int64 [], counted from 0."""


@dataclass(frozen=True)
class WarmupSchedule:
    """A learning-rate schedule: a linear warmup, followed by a shape.

    Attributes:
      learning_rate: peak learning rate.
      shape: function that maps the number of steps since the end of the warmup, float64 [], to the
        factor on the peak, float64 [].
      warmup_steps: number of steps of the warmup.
      depends_on_length: whether the learning rate at a step depends on the total number of steps;
        if so, a run cannot be resumed with another total.
    """

    learning_rate: float
    shape: Shape
    warmup_steps: int = 0
    depends_on_length: bool = False

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate, float64 [], at a step, int64 [], counted from 0."""
        rate = self.learning_rate * self.shape(_float(step - self.warmup_steps))
        if not self.warmup_steps:
            return rate
        rising = self.learning_rate * _float(step + 1) / self.warmup_steps
        return tf.where(step < self.warmup_steps, rising, rate)


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float64)


def _cosine(start: float, end: float, fraction: tf.Tensor) -> tf.Tensor:
    """Interpolates along half a cosine, from `start` at fraction 0 to `end` at fraction 1."""
    return end + (start - end) * 0.5 * (1.0 + tf.cos(math.pi * fraction))


def constant() -> Shape:
    """Returns the constant shape: `step -> 1`."""
    return tf.ones_like


def cosine(total_steps: float, final_fraction: float) -> Shape:
    """Returns the cosine shape, from 1 to `final_fraction` (Loshchilov and Hutter 2017).

    It is half a cosine, without restarts.
    """
    return lambda step: _cosine(1.0, final_fraction, tf.minimum(step / total_steps, 1.0))


def step_decay(decay_rate: float, decay_steps: float) -> Shape:
    """Returns the step-decay shape: `step -> decay_rate ** floor(step / decay_steps)`."""
    base = tf.constant(decay_rate, tf.float64)
    return lambda step: tf.pow(base, tf.floor(step / decay_steps))


def exponential(decay_rate: float, decay_steps: float) -> Shape:
    """Returns the exponential shape: `step -> decay_rate ** (step / decay_steps)`."""
    base = tf.constant(decay_rate, tf.float64)
    return lambda step: tf.pow(base, step / decay_steps)


def one_cycle(total_steps: float) -> Shape:
    """Returns the one-cycle shape (Smith and Topin 2018).

    It has the two phases of PyTorch's OneCycleLR: the learning rate rises along half a cosine from
    1/25 of the peak during the first 30% of the steps, then falls along half a cosine to 1/250,000
    of the peak at the last step.
    """

    def shape(step: tf.Tensor) -> tf.Tensor:
        top = 0.3 * total_steps - 1.0
        last = total_steps - 1.0
        up = _cosine(1 / 25, 1.0, tf.clip_by_value(step / max(top, 1e-9), 0.0, 1.0))
        down = _cosine(1.0, 1 / 250_000, tf.clip_by_value((step - top) / (last - top), 0.0, 1.0))
        return tf.where(step <= top, up, down)

    return shape


def build_schedule(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    decay_rate: float = 0.1,
    decay_steps: int = 0,
    final_fraction: float = 0.0,
) -> WarmupSchedule:
    """Builds a registered schedule from the arguments that its factory takes.

    The learning rate depends on the total number of steps if the factory takes `total_steps`, or if
    it takes `decay_steps` and `decay_steps` is 0.

    Args:
      name: name of a registered schedule.
      learning_rate: peak learning rate.
      total_steps: number of steps of the run, including the warmup.
      warmup_steps: number of steps in which the learning rate rises linearly, from learning_rate /
        warmup_steps at step 0 to learning_rate at step warmup_steps - 1; the shape applies to the
        steps after the warmup.
      decay_rate: factor of step and exponential per `decay_steps` steps.
      decay_steps: number of steps per decay in step and exponential; 0: a third of the steps after
        the warmup.
      final_fraction: last learning rate of cosine, as a fraction of the peak.

    Raises:
      ValueError: for an unknown name, or for a warmup that is not shorter than the run.
    """
    factory = SCHEDULES[name]
    if warmup_steps >= total_steps:
        raise ValueError(
            f"--warmup_steps={warmup_steps}: the run has only {total_steps} steps; give fewer"
        )
    left = float(total_steps - warmup_steps)
    values = {
        "total_steps": left,
        "decay_rate": decay_rate,
        "decay_steps": decay_steps or left / 3,
        "final_fraction": final_fraction,
    }
    taken = parameters(factory) & set(values)
    shape = factory(**{each: values[each] for each in taken})
    depends = "total_steps" in taken or ("decay_steps" in taken and not decay_steps)
    return WarmupSchedule(learning_rate, shape, warmup_steps, depends)
