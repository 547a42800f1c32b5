"""Values of the compiled training loop: arguments and result of a call, loop-carried values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.core.log_points import LogPoint
from engine.optim.precision import LossScaleState


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
    """Constants of a call of the loop: bounds, skipped updates and factor of the learning rate."""

    end: tf.Tensor  # step at which the call ends, int64 []
    every: tf.Tensor  # as LogPoints.every, int64 []
    last: tf.Tensor  # as LogPoints.last, int64 []
    skipped: tf.Tensor  # number of steps before this call that did not update the weights, int64 []
    factor: tf.Tensor | None  # of the learning rate, by the plateau schedule, float64 []


class LoopState(NamedTuple):
    """Loop-carried values: all that a step changes except the model, optimizer slots and EMA.

    The step is a counter on the host. Without early exit, the other values are on the device.
    """

    step: tf.Tensor  # int64 []
    sums: tf.Tensor  # float64, as TrainState.sums
    scale: tuple[LossScaleState, ...]  # empty if the loss scale is constant
    finite: tf.Tensor  # bool []: whether all steps of the call so far were finite
    # Without early exit, one int64 []: number of steps up to the first non-finite one, inclusive.
    counted: tuple[tf.Tensor, ...]

    def taken(self, first: tf.Tensor) -> tf.Tensor:
        """Returns the number of steps that the call has taken, int64 [].

        They end with the first non-finite step. `first` is the step before the call, int64 [].
        """
        return self.counted[0] if self.counted else self.step - first


def updates(step: tf.Tensor, finite: tf.Tensor, args: LoopArgs) -> tf.Tensor:
    """Returns the number of steps so far that updated the weights, int64 [].

    Of the steps of a call, only the last may not have updated the weights.

    Args:
      step: number of steps so far, int64 [].
      finite: whether the last of them was finite, bool [].
      args: constants of the call.
    """
    return step - args.skipped - tf.cast(~finite, tf.int64)
