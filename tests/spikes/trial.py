"""Training runs without a fault, and repetitions of them with one faulty step."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine.assembly.parts import assemble
from engine.config import flags
from engine.distributed.collectives import HostCollectives
from engine.runtime.lock import RunLock
from engine.runtime.signals import Signals
from engine.runtime.startup import Startup
from engine.tasks.classification import Classification
from engine.tasks.task import TaskOutput
from engine.trainer.bad_steps import TooManyBadStepsError, bad_step_detector
from engine.trainer.trainer import Trainer

SPIKE = 10.0  # as the docs recommend
LOUD = "inputs times 1,000"
SHUFFLED = "labels shuffled"
GUESSING = math.log(10)  # the loss of equal probabilities for ten classes
_REPOSITORY = Path(__file__).parents[2]
_KNOWN = 64  # losses before a step; their median measures training progress
_TRAINED = 0.1  # median loss; below it labels are shuffled, above it inputs are multiplied
_MOST_DRAWN = 20


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training configuration to run without a fault and with one faulty step.

    Attributes:
      name: name in the printed table.
      options: command-line options.
    """

    name: str
    options: tuple[str, ...]


def quickstart(seed: int, epochs: int = 100) -> Trial:
    """Returns a trial of `quickstart.flags` with the given seed and number of epochs."""
    path = _REPOSITORY / "quickstart.flags"
    options = (f"--flagfile={path}", f"--epochs={epochs}", f"--seed={seed}")
    return Trial(f"quickstart, {epochs} epochs, seed {seed}", options)


def mnist(model: str, optimizer: str, rate: float, batch: int, steps: int = 2000) -> Trial:
    """Returns a trial that trains a network on MNIST.

    Args:
      model: model name.
      optimizer: optimizer name.
      rate: learning rate.
      batch: global batch size.
      steps: number of steps.
    """
    options = (
        "--dataset=mnist",
        "--validation_split=0",
        "--test_split=",
        f"--model={model}",
        f"--optimizer={optimizer}",
        f"--learning_rate={rate}",
        f"--global_batch_size={batch}",
        f"--train_steps={steps}",
    )
    return Trial(f"mnist, {model}, {optimizer} {rate:g}, batch {batch}", options)


RATES = {
    "adam": ((0.001, 128), (0.0003, 64), (0.003, 128), (0.001, 32), (0.01, 512)),
    "sgd": ((0.1, 128), (0.5, 128), (0.1, 32), (0.02, 64), (0.5, 512)),
}
TRIALS = [
    *(quickstart(seed) for seed in range(10)),
    *(
        mnist(model, optimizer, rate, batch)
        for model in ("mlp", "logistic")
        for optimizer, settings in RATES.items()
        for rate, batch in settings
    ),
]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault to inject into one step.

    Attributes:
      kind: LOUD or SHUFFLED.
      step: number of the faulty step, from 0.
    """

    kind: str
    step: int


@dataclasses.dataclass
class Outcome:
    """The outcome of a training run.

    Attributes:
      left_out: numbers of the skipped steps, in order.
      losses: loss of each step, [steps]; NaN if not taken; the first loss if the step was repeated.
      norms: gradient norm of each step, [steps], as for `losses`.
      error: message of the error that stopped the run; empty if none did.
      seconds: duration.
    """

    left_out: list[int]
    losses: np.ndarray
    norms: np.ndarray
    error: str
    seconds: float


def run(trial: Trial, place: Path, common: list[str], fault: Fault | None = None) -> Outcome:
    """Trains a trial with `--spike=10` in this process; returns the outcome.

    Only TooManyBadStepsError is recorded in the outcome; other errors are raised.

    Args:
      trial: the trial.
      place: the run directory.
      common: options of all runs, such as the data directory.
      fault: fault to inject; None: no fault.
    """
    started = time.monotonic()
    config = flags.parse(
        [
            *trial.options,
            *common,
            f"--spike={SPIKE}",
            f"--run_dir={place}",
            "--report=false",
            "--progress=off",
        ]
    )
    parts = assemble(config, _Faulty(fault, config.training.global_batch_size) if fault else None)
    if fault:
        parts.task.steps_per_epoch = parts.steps_per_epoch
    recorded = _Recorded(parts)
    error = ""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        RunLock(config.run.run_dir, taken=True) as lock,
        Signals() as signals,
    ):
        trainer = Trainer(
            dataclasses.replace(parts, loop=recorded), signals, Startup(), HostCollectives()
        )
        try:
            trainer.start(lock, None)
            trainer.train()
        except TooManyBadStepsError as stopped:
            error = str(stopped)
        finally:
            trainer.close()
    told = [recorded.told.get(step, (np.nan, np.nan)) for step in range(parts.total_steps)]
    losses, norms = np.array(told).T
    left_out = sorted(bad_step_detector(parts).left_out)
    return Outcome(left_out, losses, norms, error, time.monotonic() - started)


class _Recorded:
    """Wrapper of a training loop that records the loss and the gradient norm of each step."""

    def __init__(self, parts: Any) -> None:
        self._loop, self._state = parts.loop, parts.state
        self.told: dict[int, tuple[float, float]] = {}

    def run(self, steps: int, *at: Any) -> Any:
        step = int(self._state.step)
        taken = self._loop.run(steps, *at)
        pairs = zip(taken.losses.tolist(), taken.norms.tolist(), strict=True)
        for place, pair in enumerate(pairs):
            self.told.setdefault(step + place, pair)
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class _Faulty(Classification):
    """Classification task that corrupts the training batch of one step.

    `steps_per_epoch` must be set before the task is traced.

    Args:
      fault: the faulty step and its kind of fault.
      batch: number of examples in a full global batch.
    """

    def __init__(self, fault: Fault, batch: int) -> None:
        super().__init__()
        self._fault, self._batch = fault, batch
        self.steps_per_epoch = 0

    def __call__(self, model: Any, batch: Any, context: Any) -> TaskOutput:
        if not context.training:
            return super().__call__(model, batch, context)
        step = batch.epoch * self.steps_per_epoch + batch.position // self._batch
        wrong = tf.equal(step, self._fault.step)
        inputs, targets = batch.inputs, batch.targets
        if self._fault.kind == LOUD:
            inputs *= tf.where(wrong, 1000.0, 1.0)
        else:
            rows, valid = tf.shape(targets)[0], tf.cast(tf.reduce_sum(batch.mask), tf.int32)
            seed = tf.stack([tf.constant(self._fault.step), 1])
            order = tf.argsort(tf.random.stateless_uniform([valid], seed))
            order = tf.concat([order, tf.range(valid, rows)], 0)  # padding is not shuffled
            targets = tf.where(wrong, tf.gather(targets, order), targets)
        return super().__call__(model, batch._replace(inputs=inputs, targets=targets), context)


@dataclasses.dataclass
class Struck:
    """The result of a trial with one faulty step.

    Attributes:
      fault: the injected fault.
      loss: loss of the faulty step.
      norm: gradient norm of the faulty step.
      before: median of the 64 losses before the faulty step in the run without a fault.
      unseen: faults that were drawn first and discarded, because no step was skipped, the loss is
        no higher than that of guessing, and the gradient norm no larger than the largest earlier
        one in the run without a fault.
      outcome: outcome of the run.
    """

    fault: Fault
    loss: float
    norm: float
    before: float
    unseen: list[Fault]
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether the run ended without an error and skipped only the faulty step."""
        return not self.outcome.error and self.outcome.left_out == [self.fault.step]


def strike(
    trial: Trial, sound: Outcome, place: Path, common: list[str], *, seed: int, kind: str
) -> Struck:
    """Repeats a trial with a fault at one random step until a fault has an effect.

    A fault has an effect if a step is skipped, or the faulty step's loss exceeds that of guessing,
    or the gradient norm exceeds all earlier ones of the run without a fault.

    Args:
      trial: the trial.
      sound: outcome of the run without a fault.
      place: parent of the run directories.
      common: options of all runs, as in `run`.
      seed: seed of the choice of the step.
      kind: LOUD or SHUFFLED; replaced by LOUD if fewer than 64 median losses are below 0.1.

    Returns:
      The run whose fault has an effect, and the faults before it.

    Raises:
      RuntimeError: none of 20 faults has an effect.
    """
    medians = {
        step: float(np.median(sound.losses[step - _KNOWN : step]))
        for step in range(_KNOWN, len(sound.losses))
    }
    trained = [step for step, median in medians.items() if median < _TRAINED]
    if len(trained) < _KNOWN:
        kind = LOUD
    instants = trained if kind == SHUFFLED else sorted(medians.keys() - set(trained))
    drawn = np.random.default_rng(seed).permutation(instants)[:_MOST_DRAWN].tolist()
    unseen: list[Fault] = []
    for number, step in enumerate(drawn):
        fault = Fault(kind, step)
        outcome = run(trial, place / str(number), common, fault)
        loss, norm = float(outcome.losses[step]), float(outcome.norms[step])
        shows = loss > GUESSING or norm > sound.norms[:step].max()
        if shows or outcome.left_out:
            return Struck(fault, loss, norm, medians[step], unseen, outcome)
        unseen.append(fault)
    raise RuntimeError(f"{trial.name}: none of {_MOST_DRAWN} faults shows")
