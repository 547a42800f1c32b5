"""TrainState: everything that must survive (L5).

If it is not in here it does not survive; if it must survive it is in here. A checkpoint is this
object and nothing else. Data state is the step alone: which examples come next follows from it
and from the seed (L4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from engine import metrics
from engine.config import MOST_LEFT_OUT, RANKED, REMEMBERED
from engine.numerics.precision import LossScale
from engine.optimizers import Optimizer


def _counter(name: str, value: int = 0) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64, trainable=False, name=name)


def _number(name: str, value: float = 0.0) -> tf.Variable:
    return tf.Variable(value, dtype=tf.float64, trainable=False, name=name)


class Best(tf.Module):
    """The best epoch so far by the monitored metric; step -1: none yet."""

    def __init__(self) -> None:
        super().__init__(name="best")
        self.value = _number("value", float("nan"))
        self.step = _counter("step", -1)


class Patience(tf.Module):
    """Counters of early stopping."""

    def __init__(self) -> None:
        super().__init__(name="patience")
        self.reference = _number("reference", float("nan"))  # last value that counted as better
        self.waited = _counter("waited")  # epochs since
        self.stopped = _counter("stopped")  # 1: training has ended early


class Times(tf.Module):
    """What the clock must remember, in seconds."""

    def __init__(self) -> None:
        super().__init__(name="times")
        self.first_start = _number("first_start")  # since the epoch of the system's clock
        self.last_step = _number("last_step")  # likewise
        self.training = _number("training")  # inside the loop, tracing included
        self.steady = _number("steady")  # inside the loop, each start's first call left out
        self.steady_steps = _counter("steady_steps")
        self.restarts = _counter("restarts")
        self.lost_steps = _counter("lost_steps")  # taken again because a kill came before a save


class Watch(tf.Module):
    """What the guard must remember."""

    def __init__(self) -> None:
        super().__init__(name="watch")
        self.bad = _counter("bad")  # steps that were not finite and that it let pass
        self.in_a_row = _counter("in_a_row")  # of them, up to the last step
        unused = tf.fill([MOST_LEFT_OUT], tf.constant(-1, tf.int64))
        self.left_out = tf.Variable(unused, trainable=False, name="left_out")  # steps; -1: none
        self.why = tf.Variable(unused, trainable=False, name="why")  # of each, a guard.Reason
        no_losses = tf.fill([REMEMBERED], tf.constant(float("nan"), tf.float64))
        self.losses = tf.Variable(no_losses, trainable=False, name="losses")  # the last good steps'
        no_norms = tf.fill([RANKED], tf.constant(float("nan"), tf.float64))
        # The largest norms of the gradients of good steps, in descending order.
        self.norms = tf.Variable(no_norms, trainable=False, name="norms")
        self.start = _number("start", float("nan"))  # the loss at the start; nan: not known yet
        self.excess = _number("excess")  # of a sound loss over the median before it, the largest


# Variables that checkpoints of 0.4.0 lack, by their names in a checkpoint, and the value that each
# then has. The guard takes the oldest losses that such a checkpoint holds for those at the start.
ABSENT = {
    "watch/norms": np.full(RANKED, np.nan),
    "watch/start": np.array(np.nan),
    "watch/excess": np.array(0.0),
}
# Variables that checkpoints of 0.4.0 have and no run has any more.
DROPPED = ("update_ratio",)


class TrainState(tf.Module):
    """One state.

    Args:
      model: a tf.Module whose variables exist already, made in the strategy's scope.
      optimizer: with its slots made in the same scope.
      task_metrics: names of the task's metrics.
      average: a model of the same variables, the averaged weights; None: none are kept.
      make_loss_scale: makes the loss scale, where its variables belong.
    """

    def __init__(
        self,
        model: tf.Module,
        optimizer: Optimizer,
        task_metrics: tuple[str, ...],
        *,
        average: tf.Module | None = None,
        make_loss_scale: Callable[[], LossScale] = LossScale,
    ) -> None:
        super().__init__(name="state")
        self.model = model
        self.average = average
        self.optimizer = optimizer
        # The rest is read by the host, or once a step: one copy, beside the host, not mirrored.
        with tf.device("CPU:0"):
            self.step = _counter("step")
            self.updates = _counter("updates")  # steps that moved the weights
            self.ended = _counter("ended")  # step of the last epoch end that was dealt with
            self.written = _counter("written", -1)  # step of the last rows in metrics.jsonl
            self.loss_scale = make_loss_scale()
            zeros = tf.zeros([metrics.size(task_metrics) + 2], tf.float64)
            self.sums = tf.Variable(zeros, trainable=False, name="sums")  # of the epoch so far
            self.logged = tf.Variable(
                zeros, trainable=False, name="logged"
            )  # of them, in the curves
            self.best = Best()
            self.patience = Patience()
            self.watch = Watch()
            self.times = Times()

    def scored_model(self, averaged: bool) -> tf.Module:
        """What is evaluated: the averaged weights where there are any and they are asked for."""
        return self.average if averaged and self.average is not None else self.model


def weights_sha256(model: tf.Module) -> str:
    """Digest of the trained variables' bytes, in the model's own fixed order."""
    digest = hashlib.sha256()
    for variable in model.trainable_variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()
