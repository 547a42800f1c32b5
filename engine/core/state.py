"""The training state: everything that a resumed run needs.

A checkpoint holds the variables of `TrainState` and no others. Only the step represents the
position in the data: the step and the seed determine the next examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.core import metrics
from engine.core.options import LARGEST_NORMS, MAX_KEEP_BEST, MAX_SKIPPED_STEPS, SPIKE_WINDOW
from engine.optim.base import Optimizer
from engine.optim.precision import LossScale


def _counter(name: str, value: int = 0, shape: Sequence[int] = ()) -> tf.Variable:
    return tf.Variable(tf.constant(value, tf.int64, shape), trainable=False, name=name)


def _number(name: str, value: float = 0.0, shape: Sequence[int] = ()) -> tf.Variable:
    return tf.Variable(tf.constant(value, tf.float64, shape), trainable=False, name=name)


class BestState(tf.Module):
    """Monitored metrics and steps of the best evaluations so far; nan and -1 before the first."""

    def __init__(self) -> None:
        super().__init__(name="best")
        self.value = _number("value", float("nan"))
        self.step = _counter("step", -1)
        # The best evaluations, the best one first, whose checkpoints are kept; nan and -1: unused.
        self.values = _number("values", float("nan"), [MAX_KEEP_BEST])
        self.steps = _counter("steps", -1, [MAX_KEEP_BEST])


class PatienceState(tf.Module):
    """State of early stopping: reference value, evaluations without improvement, reason to stop."""

    def __init__(self) -> None:
        super().__init__(name="patience")
        self.reference = _number("reference", float("nan"))  # metric at the last improvement
        self.wait = _counter("wait")  # number of evaluations since that improvement
        self.stopped = _counter("stopped")  # a StopReason; 0: training goes on


class TimingState(tf.Module):
    """Timings and counters for throughput and goodput; times and durations are in seconds."""

    def __init__(self) -> None:
        super().__init__(name="timing")
        self.first_start = _number("first_start")  # Unix time of the run's first start
        self.last_step = _number("last_step")  # Unix time at the end of the last step
        self.training = _number("training")  # duration of all calls of the loop
        self.steady = _number("steady")  # `training` without the first call of each process
        self.steady_steps = _counter("steady_steps")  # number of steps in `steady`
        self.restarts = _counter("restarts")  # number of restarts of the run
        self.lost_steps = _counter("lost_steps")  # steps repeated after kills and rollbacks


class BadStepState(tf.Module):
    """State of the detector of non-finite steps and of spikes in loss and gradient norm."""

    def __init__(self) -> None:
        super().__init__(name="bad_steps")
        self.tolerated = _counter("tolerated")  # number of tolerated non-finite steps
        self.in_a_row = _counter("in_a_row")  # consecutive non-finite steps, up to the last step
        # The skipped steps, and the reason for each, a BadStepReason; -1: unused.
        self.skipped = _counter("skipped", -1, [MAX_SKIPPED_STEPS])
        self.reasons = _counter("reasons", -1, [MAX_SKIPPED_STEPS])
        # The losses of the last steps that were not bad; nan: unused.
        self.losses = _number("losses", float("nan"), [SPIKE_WINDOW])
        # The largest gradient norms of steps that were not bad, each divided by the factor by which
        # its batch may deviate more than a full one, in descending order; nan: unused.
        self.norms = _number("norms", float("nan"), [LARGEST_NORMS])
        self.initial_loss = _number("initial_loss", float("nan"))  # reference; nan: not known yet
        self.max_excess = _number("max_excess")  # largest excess of a normal loss over the median


class TrainState(tf.Module):
    """All variables of a checkpoint: model, EMA, optimizer slots, loss scale, counters and sums.

    Args:
      model: model whose variables were created in the strategy's scope.
      optimizer: optimizer whose slots were created in the same scope.
      task_metrics: metrics of the task, by name.
      ema: model with the same variables, which holds their EMA; None: no EMA.
      plateau: state of the plateau schedule; None: the run has another schedule.
      make_loss_scale: returns the loss scale; called in the device scope of its variables.
    """

    def __init__(
        self,
        model: tf.Module,
        optimizer: Optimizer,
        task_metrics: metrics.Metrics,
        *,
        ema: tf.Module | None = None,
        plateau: tf.Module | None = None,
        make_loss_scale: Callable[[], LossScale] = LossScale,
    ) -> None:
        super().__init__(name="state")
        self.model = model
        self.ema = ema
        self.optimizer = optimizer
        self.plateau = plateau
        # The host reads the other variables, or the loop reads them once per call. So they are not
        # mirrored.
        with tf.device("CPU:0"):
            self.step = _counter("step")
            self.updates = _counter("updates")  # number of steps that updated the weights
            self.last_evaluation_step = _counter("last_evaluation_step")  # -1: step 0 is to come
            self.last_logged_step = _counter("last_logged_step", -1)  # in metrics.jsonl; -1: none
            self.loss_scale = make_loss_scale()
            shape = [metrics.size(task_metrics) + 2]
            self.sums = _number("sums", shape=shape)  # since the last evaluation
            # The value of `sums` at the last log point since that evaluation; 0 before it.
            self.last_logged_sums = _number("last_logged_sums", shape=shape)
            self.best = BestState()
            self.patience = PatienceState()
            self.bad_steps = BadStepState()
            self.timing = TimingState()

    def scored_model(self, averaged: bool) -> tf.Module:
        """Returns the model to evaluate: `ema` if `averaged` and there is one, else `model`."""
        return self.ema if averaged and self.ema is not None else self.model


def weights_sha256(model: tf.Module) -> str:
    """Returns the SHA-256, in hex, of the bytes of `model.trainable_variables`, in that order."""
    digest = hashlib.sha256()
    for variable in model.trainable_variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()
