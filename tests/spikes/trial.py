"""Trainings that are sound, and the same with one step that goes wrong."""

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

from engine import flags
from engine.assembly import assemble
from engine.keeping.lock import RunLock
from engine.keeping.signals import Signals
from engine.startup import Startup
from engine.task import Classification, Scores
from engine.training.guard import GuardError, guard_of
from engine.training.trainer import Trainer
from engine.workers.crew import Crew

SPIKE = 10.0  # as the docs advise
LOUD = "inputs times 1,000"
SHUFFLED = "labels shuffled"
GUESSING = math.log(10)  # the loss of equal probabilities for ten classes
_REPOSITORY = Path(__file__).parents[2]
_KNOWN = 64  # losses before a step, whose median tells how well the network is trained
_TRAINED = 0.1  # below it labels are shuffled, above it inputs are multiplied
_MOST_DRAWN = 20


@dataclasses.dataclass(frozen=True)
class Trial:
    """A configuration.

    name: for a table.
    options: as flags.
    """

    name: str
    options: tuple[str, ...]


def quickstart(seed: int, epochs: int = 100) -> Trial:
    """Returns `quickstart.flags` for so many epochs."""
    path = _REPOSITORY / "quickstart.flags"
    options = (f"--flagfile={path}", f"--epochs={epochs}", f"--seed={seed}")
    return Trial(f"quickstart, {epochs} epochs, seed {seed}", options)


def mnist(model: str, optimizer: str, rate: float, batch: int, steps: int = 2000) -> Trial:
    """Returns a dense network on MNIST."""
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
    """A step that goes wrong.

    kind: LOUD or SHUFFLED.
    step: which one, from 0.
    """

    kind: str
    step: int


@dataclasses.dataclass
class Outcome:
    """What a run did.

    left_out: the steps, in order.
    losses: of each step that was taken, float32 [steps]; of one taken twice, the first.
    norms: of the gradient of each step that was taken, as the losses.
    error: why it stopped; "": it did not.
    seconds: that it took.
    """

    left_out: list[int]
    losses: np.ndarray
    norms: np.ndarray
    error: str
    seconds: float


def run(trial: Trial, place: Path, common: list[str], fault: Fault | None = None) -> Outcome:
    """Trains with `--spike`.

    Args:
      trial: the configuration.
      place: a directory of its own.
      common: options such as where the data are.
      fault: the step that goes wrong; None: none does.
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
        trainer = Trainer(dataclasses.replace(parts, loop=recorded), signals, Startup(), Crew())
        try:
            trainer.start(lock, None)
            trainer.train()
        except GuardError as stopped:
            error = str(stopped)
        finally:
            trainer.close()
    told = [recorded.told.get(step, (np.nan, np.nan)) for step in range(parts.total_steps)]
    losses, norms = np.array(told).T
    left_out = sorted(guard_of(parts).left_out)
    return Outcome(left_out, losses, norms, error, time.monotonic() - started)


class _Recorded:
    """A loop that keeps the losses and norms of its steps, by step."""

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
    """Classification of uint8 images; the batch of one step is not what it was.

    Args:
      fault: which step, and what is done to its batch.
      batch: examples in a full global batch.
    """

    def __init__(self, fault: Fault, batch: int) -> None:
        super().__init__()
        self._fault, self._batch = fault, batch
        self.steps_per_epoch = 0

    def __call__(self, model: Any, batch: Any, call: Any) -> Scores:
        if not call.training:
            return super().__call__(model, batch, call)
        step = batch.epoch * self.steps_per_epoch + batch.place // self._batch
        wrong = tf.equal(step, self._fault.step)
        inputs, targets = tf.cast(batch.inputs, tf.float32) / 255, batch.targets
        if self._fault.kind == LOUD:
            inputs *= tf.where(wrong, 1000.0, 1.0)
        else:
            rows, valid = tf.shape(targets)[0], tf.cast(tf.reduce_sum(batch.mask), tf.int32)
            seed = tf.stack([tf.constant(self._fault.step), 1])
            order = tf.argsort(tf.random.stateless_uniform([valid], seed))
            order = tf.concat([order, tf.range(valid, rows)], 0)  # padding stays where it is
            targets = tf.where(wrong, tf.gather(targets, order), targets)
        return super().__call__(model, batch._replace(inputs=inputs, targets=targets), call)


@dataclasses.dataclass
class Struck:
    """A run with a step that went wrong.

    fault: which.
    loss: of that step.
    norm: of its gradient.
    before: the median of the 64 losses before it in the sound run.
    unseen: faults drawn before, whose loss was no higher than that of guessing and whose gradient
      was no longer than the longest before it in the sound run: batches times 1,000 that are still
      classified right, and move the weights no further than a sound step does.
    outcome: of the run.
    """

    fault: Fault
    loss: float
    norm: float
    before: float
    unseen: list[Fault]
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether that step is left out and no other."""
        return not self.outcome.error and self.outcome.left_out == [self.fault.step]


def strike(
    trial: Trial, sound: Outcome, place: Path, common: list[str], *, seed: int, kind: str
) -> Struck:
    """Trains again with a step that goes wrong, at a random instant.

    Args:
      trial: the configuration.
      sound: the same, undisturbed.
      place: a directory of its own.
      common: as `run`.
      seed: of the instant.
      kind: LOUD or SHUFFLED; LOUD where the loss is never below 0.1.
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
