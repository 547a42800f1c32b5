"""Values of the compiled training loop: arguments and result of a call, loop-carried values.

The functions are called in the graph.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.core import log_points
from engine.core.log_points import LogPoint
from engine.core.step import StepContext
from engine.optim.precision import LossScale, LossScaleState
from engine.optim.schedules import WarmupSchedule


class LoopResult(NamedTuple):
    """Result of one call of the loop; a step that updated the weights is called finite."""

    steps: int  # number of steps taken; all but possibly the last were finite
    finite: bool  # whether the last step was finite
    losses: np.ndarray  # float32 [steps], mean loss of each step; empty if not recorded
    norms: np.ndarray  # float32 [steps], gradient norms before clipping; empty if not recorded
    points: list[LogPoint]  # log points reached
    waited: float  # seconds for which the host waited for the feed
    computed: int  # `steps`, or without early exit also the steps after a non-finite one


class LoopArgs(NamedTuple):
    """Constants of a call of the loop: bounds, skipped updates and factor of the learning rate.

    The bounds are on the host. The other two are where the values of `LoopState` are.
    """

    first: tf.Tensor  # step before the call, int64 []
    steps: tf.Tensor  # maximum number of steps of the call, int32 []
    every: tf.Tensor  # as LogPoints.every, int64 []
    last: tf.Tensor  # as LogPoints.last, int64 []
    skipped: tf.Tensor  # number of steps before this call that did not update the weights, int64 []
    factor: tf.Tensor | None  # of the learning rate, by the plateau schedule, float64 []


class LoopState(NamedTuple):
    """Loop-carried values: all that a step changes except the model, optimizer slots and EMA.

    With early exit, they are on the host; otherwise each replica has its own on its device.
    """

    step: tf.Tensor  # int64 []
    sums: tf.Tensor  # float64, as TrainState.sums
    scale: tuple[LossScaleState, ...]  # empty if the loss scale is constant
    finite: tf.Tensor  # bool []: whether all steps of the call so far were finite
    # Without early exit, one int64 []: number of steps up to the first non-finite one, inclusive.
    taken: tuple[tf.Tensor, ...]


def updates(step: tf.Tensor, finite: tf.Tensor, skipped: tf.Tensor) -> tf.Tensor:
    """Returns the number of steps so far that updated the weights, int64 [].

    Of the steps of a call, only the last may not have updated the weights.

    Args:
      step: number of steps so far, int64 [].
      finite: whether the last of them was finite, bool [].
      skipped: number of steps before the call that did not update the weights, int64 [].
    """
    return step - skipped - tf.cast(~finite, tf.int64)


@dataclasses.dataclass(frozen=True)
class LoopStateUpdater:
    """Computes the loop-carried values, and what a step and a log point need of them.

    The methods are called on the host with early exit, otherwise in the context of each replica.
    The arguments `skipped` and `factor` are fields of `LoopArgs`.
    """

    schedule: WarmupSchedule
    loss_scale: LossScale
    early_exit: bool  # as `Loop.early_exit`

    def first(
        self,
        skipped: tf.Tensor,
        factor: tf.Tensor | None,
        step: tf.Tensor,
        sums: tf.Tensor,
        scale: tuple[LossScaleState, ...],
    ) -> tuple[tf.Tensor, tf.Tensor | None, LoopState]:
        """Returns `skipped`, `factor` and the `LoopState` before a call, from values on the host.

        `step`, `sums` and `scale` are the fields of the `LoopState`.
        """
        finite = tf.constant(True)
        if self.early_exit:
            return skipped, factor, LoopState(step, sums, scale, finite, ())
        skipped = tf.identity(skipped)
        factor = None if factor is None else tf.identity(factor)
        step, sums, scale = tf.nest.map_structure(tf.identity, (step, sums, scale))
        return skipped, factor, LoopState(step, sums, scale, finite, (tf.zeros([], tf.int64),))

    def context(self, now: LoopState, skipped: tf.Tensor, factor: tf.Tensor | None) -> StepContext:
        """Returns the context of the next step.

        All earlier steps of the call are taken to have updated the weights: a step after one that
        did not is not taken, or changes nothing.
        """
        scale = self.loss_scale.value_of(now.scale)
        finite = None if self.early_exit else now.finite
        return StepContext(now.step, now.step - skipped, scale, factor, finite)

    def after(self, now: LoopState, finite: tf.Tensor, sums: tf.Tensor) -> LoopState:
        """Returns the loop-carried values after a step.

        Args:
          now: the values before the step.
          finite: whether the step was finite, bool [].
          sums: metrics.step_sums of the step.
        """
        scale, taken = self.loss_scale.after(now.scale, finite), now.taken
        if not self.early_exit:  # a step after the first non-finite one changes nothing
            select = functools.partial(tf.where, now.finite)
            scale = tf.nest.map_structure(select, scale, now.scale)
            taken = (now.taken[0] + tf.cast(now.finite, tf.int64),)
            finite &= now.finite
        added = now.sums + tf.cast(sums, tf.float64)
        return LoopState(now.step + 1, tf.where(finite, added, now.sums), scale, finite, taken)

    def log_row(self, now: LoopState, skipped: tf.Tensor, factor: tf.Tensor | None) -> tf.Tensor:
        """Returns a packed `LogPoint` of the values after a step; see `log_points.pack`."""
        return log_points.pack(
            now.step,
            updates(now.step, now.finite, skipped),
            self.loss_scale.value_of(now.scale),
            self.schedule(now.step - 1, factor),
            sums=now.sums,
        )
