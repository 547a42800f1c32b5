"""Learning-rate schedules: pure functions of the step; `plateau`, in its own file, has a state.

A factory of `SCHEDULES` returns a shape: a function that maps the number of steps since the end of
the warmup, float64 [], to a factor of the peak learning rate, float64 []. A factory has any of the
parameters `decay_rate`, `decay_steps` (never 0), `final_fraction`, `schedule_points`,
`plateau_patience` and `plateau_cooldown`, which are options, and `total_steps`, the number of steps
after the warmup. Other keyword-only parameters of a factory that a user registers are flags, such
as `--schedule.cycles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from engine.config.registry import parameters
from engine.optim.plateau import Plateau
from engine.optim.points import POINTS, points
from engine.optim.registry import SCHEDULES

# Steps since the warmup -> factor of the peak learning rate, both float64 [].
Shape = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class WarmupSchedule:
    """A learning-rate schedule: a linear warmup, then the peak learning rate times `shape`.

    In the warmup, the learning rate rises from learning_rate / warmup_steps at step 0 to
    learning_rate at step warmup_steps - 1. Then it is `learning_rate * shape(step - warmup_steps)`.
    """

    learning_rate: float  # peak
    shape: Shape
    warmup_steps: int = 0
    # Whether `shape` depends on the total number of steps, which a resumed run must then keep.
    depends_on_length: bool = False

    @property
    def plateau(self) -> Plateau | None:
        """The state of the plateau schedule; None for other schedules, which have no state."""
        return self.shape if isinstance(self.shape, Plateau) else None

    def __call__(self, step: tf.Tensor, factor: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the learning rate, float64 [], at a step.

        Args:
          step: number of earlier steps, int64 [].
          factor: factor of the peak learning rate after the warmup, float64 [], which is used
            instead of a call of `shape`; None: `shape` is called.
        """
        if factor is None:
            factor = self.shape(tf.cast(step - self.warmup_steps, tf.float64))
            # That of a user may return float32, or a Python number.
            factor = tf.cast(tf.convert_to_tensor(factor, dtype_hint=tf.float64), tf.float64)
        rate = self.learning_rate * factor
        if not self.warmup_steps:
            return rate
        rising = self.learning_rate * tf.cast(step + 1, tf.float64) / self.warmup_steps
        return tf.where(step < self.warmup_steps, rising, rate)


def _cosine(start: float, end: float, fraction: tf.Tensor) -> tf.Tensor:
    """Interpolates along half a cosine, from `start` at fraction 0 to `end` at fraction 1."""
    return end + (start - end) * 0.5 * (1.0 + tf.cos(math.pi * fraction))


def constant() -> Shape:
    """Returns a function that maps steps after the warmup to 1: a constant learning rate."""
    return tf.ones_like


def cosine(total_steps: float, final_fraction: float) -> Shape:
    """Returns a function that maps steps after the warmup to a factor that falls along a cosine.

    The factor of the peak learning rate falls along half a cosine from 1 to `final_fraction` in
    `total_steps` steps, then stays at `final_fraction` (Loshchilov and Hutter 2017, "SGDR", without
    restarts).
    """
    return lambda step: _cosine(1.0, final_fraction, tf.minimum(step / total_steps, 1.0))


def linear(total_steps: float, final_fraction: float) -> Shape:
    """Returns a function that maps steps after the warmup to a factor that falls linearly.

    The factor of the peak learning rate falls from 1 to `final_fraction` in `total_steps` steps,
    then stays at `final_fraction`.
    """
    slope = (1.0 - final_fraction) / total_steps
    return lambda step: 1.0 - slope * tf.minimum(step, total_steps)


def piecewise_linear(total_steps: float, schedule_points: str) -> Shape:
    """Returns a function that maps steps after the warmup to a factor between given points.

    At the share x of `total_steps`, the factor of the peak learning rate lies on the line between
    the points before and after x; see `engine.optim.points.points`. After the last point, it stays.
    """
    shares, factors = np.array(points(schedule_points)).T
    slopes = np.append(np.diff(factors) / np.diff(shares), 0.0)

    def shape(step: tf.Tensor) -> tf.Tensor:
        share = step / total_steps
        place = tf.reduce_sum(tf.cast(share >= shares[1:], tf.int64))
        start, slope = tf.gather(shares, place), tf.gather(slopes, place)
        return tf.gather(factors, place) + slope * (share - start)

    return shape


def piecewise_constant(total_steps: float, schedule_points: str) -> Shape:
    """Returns a function that maps steps after the warmup to the factor of the last point.

    From the share x of `total_steps` on, the factor of the peak learning rate is that of the point
    (x, factor); see `engine.optim.points.points`.
    """
    shares, factors = np.array(points(schedule_points)).T

    def shape(step: tf.Tensor) -> tf.Tensor:
        place = tf.reduce_sum(tf.cast(step / total_steps >= shares[1:], tf.int64))
        return tf.gather(factors, place)

    return shape


def step_decay(decay_rate: float, decay_steps: float) -> Shape:
    """Returns a function that maps a step to `decay_rate ** floor(step / decay_steps)`."""
    base = tf.constant(decay_rate, tf.float64)
    return lambda step: tf.pow(base, tf.floor(step / decay_steps))


def exponential(decay_rate: float, decay_steps: float) -> Shape:
    """Returns a function that maps a step to `decay_rate ** (step / decay_steps)`."""
    base = tf.constant(decay_rate, tf.float64)
    return lambda step: tf.pow(base, step / decay_steps)


def one_cycle(total_steps: float) -> Shape:
    """Returns a function that maps a step to the factor of the one-cycle policy.

    Smith and Topin 2018, with the two phases of PyTorch's OneCycleLR: the factor of the peak
    learning rate rises along half a cosine from 1/25 to 1 during the first 30% of the `total_steps`
    steps, then falls along half a cosine to 1/250,000 at the last step.
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
    schedule_points: str = POINTS,
    plateau_patience: int = 10,
    plateau_cooldown: int = 0,
    arguments: Mapping[str, Any] | None = None,
) -> WarmupSchedule:
    """Builds a schedule: a linear warmup, then the shape that a registered factory returns.

    Args:
      name: name of the factory (--schedule).
      learning_rate: peak learning rate.
      total_steps: number of steps of the run, including the warmup.
      warmup_steps: number of steps of the warmup.
      decay_rate: factor of the learning rate per `decay_steps` or, for "plateau", per reduction; if
        the factory takes it.
      decay_steps: steps per decay, if the factory takes it; 0: a third of the steps after the
        warmup.
      final_fraction: last or smallest factor of the peak learning rate, if the factory takes it.
      schedule_points: points of the piecewise schedules.
      plateau_patience: for "plateau", evaluations in a row without improvement that are tolerated.
      plateau_cooldown: for "plateau", evaluations after a reduction that are not counted.
      arguments: further arguments of the factory, by parameter name.

    Raises:
      ValueError: for an unknown name, or if `warmup_steps` is not below `total_steps`.
      TypeError: if `arguments` lacks a required parameter of the factory, or has a name that is not
        a parameter of the factory or is one of the values above that the factory takes.
    """
    factory = SCHEDULES[name]
    if warmup_steps >= total_steps:
        raise ValueError(
            f"--warmup_steps={warmup_steps}: the run has only {total_steps} steps; give fewer"
        )
    shape_steps = float(total_steps - warmup_steps)
    values = {
        "total_steps": shape_steps,
        "decay_rate": decay_rate,
        "decay_steps": decay_steps or shape_steps / 3,
        "final_fraction": final_fraction,
        "schedule_points": schedule_points,
        "plateau_patience": plateau_patience,
        "plateau_cooldown": plateau_cooldown,
    }
    accepted = parameters(factory)
    passed = {each: values[each] for each in accepted & values.keys()}
    shape = factory(**passed, **(arguments or {}))
    depends = "total_steps" in accepted or ("decay_steps" in accepted and not decay_steps)
    return WarmupSchedule(learning_rate, shape, warmup_steps, depends)
