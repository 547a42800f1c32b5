"""Small runs of one configuration, put together as often as the laws need them."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import models
import pipelines
from engine import assembly
from engine.assembly import Parts
from engine.config import Config, replaced
from engine.distribute import Devices, topologies
from engine.keeping.checkpoint import Checkpoints
from engine.task import Task
from engine.verify import bounds, graph
from engine.verify.poison import Poisoned
from engine.verify.trajectory import Trajectory, take, travelled

STEPS = 16  # of a run
SAVED = 7  # the step after which it is saved
FULL_BATCHES = 4  # of an epoch, beside a partial one: epochs end at steps 5, 10 and 15
EVALUATION_BYTES = 32 << 20  # decoded: what is evaluated is cut down to it

MakeTask = Callable[[], Task]


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Somebody asked to stop."""


class Bench:
    """Puts runs of one configuration together, on one device and on several.

    A run takes a few steps over the first few examples of the user's training split, so that
    epochs end on the way, with a partial batch. All else is as the user configured it, the
    length of the schedule too.

    Args:
      config: all options.
      task: what is learned, or what makes it anew for each run; None: as the options say.
      folder: for decoded data and a checkpoint.
      interrupted: asked now and then whether to stop.

    Raises:
      ValueError: for bad input, as in training.
      Interrupted: from here and from any method, when asked to stop.
    """

    def __init__(
        self,
        config: Config,
        task: MakeTask | Task | None,
        folder: str,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        training = config.training
        self.config = config
        self.built: list[Parts] = []
        self._folder, self._interrupted = folder, interrupted
        self._make_task = _maker(task, config)
        self._hidden: dict[str, tuple[tf.Variable, np.ndarray]] = {}
        self._taken: dict[tuple, Trajectory] = {}
        self.topologies = topologies(training.strategy, training.virtual_devices)
        if training.shards == 1:  # the one shard of a batch is on one device
            self.topologies = self.topologies._replace(many=self.topologies.one)
        self.whole = assembly.open_source(config)
        self.source, self.scored = _first_of(self.whole, training.global_batch_size)
        # What is evaluated, and under which name: the training split where nothing is held out.
        held_out = getattr(self.whole, self.scored)
        self.scored_from = self.scored if held_out is not None else "train"
        self.examples_held_out = len(held_out if held_out is not None else self.whole.train)
        per_epoch = pipelines.steps_per_epoch(len(self.whole.train), training.global_batch_size)
        self.total_steps = assembly.total_steps(config, per_epoch)
        self.feed_kind, _ = pipelines.choose_feed(config.data.feed, self.whole)

    # --- parts --------------------------------------------------------------------------------

    def assembled(self, devices: Devices, **options: Any) -> Parts:
        """A run put together anew, with a task of its own.

        Args:
          devices: to compute on.
          **options: in place of the user's.
        """
        self.poll()
        # What is random without the run's seed is to show: nothing may follow these.
        tf.random.set_seed(len(self.built))
        chosen = {
            "feed": self.feed_kind,
            "cache_dir": os.path.join(self._folder, "cache"),
            "train_steps": max(self.total_steps, 2 * STEPS),
            "progress": "off",
            **options,
        }
        task = Poisoned(self._make_task())
        parts = assembly.assemble(
            replaced(self.config, **chosen), task, source=self.source, devices=devices
        )
        self.built.append(parts)
        for variable, value in self._hidden.values():
            variable.assign(value)
        return parts

    def hidden(self, parts: Parts) -> dict[str, tf.Variable]:
        """Variables that a step reads or writes and that are not in the state, by name."""
        found = graph.strangers(parts.loop.graph(), parts.state)
        ours = (parts.task.factor, parts.task.row)  # type: ignore[attr-defined]
        return {v.name: v for v in found if not any(v is own for own in ours)}

    # --- steps --------------------------------------------------------------------------------

    def poll(self) -> None:
        """Stops here, if somebody asked for it."""
        if self._interrupted():
            raise Interrupted

    def take(self, parts: Parts, steps: int) -> Parts:
        """Takes steps, a few at once."""
        for done in range(0, steps, 3):
            self.poll()
            take(parts, min(3, steps - done))
        return parts

    def score(self, parts: Parts) -> dict[str, float | int]:
        """Means over what is evaluated."""
        means = parts.evaluations[self.scored].run(self._interrupted)
        if means is None:
            raise Interrupted
        return means

    # --- what the laws compare ----------------------------------------------------------------

    @property
    def home(self) -> Trajectory:
        """The run on the devices that it trains on; it was saved after step `SAVED`."""
        return self.on(self.topologies.home)

    def on(self, devices: Devices, **options: Any) -> Trajectory:
        """The run on these devices, from its first step; taken once.

        Args:
          devices: to compute on.
          **options: in place of the user's.
        """
        place = (devices.words, *sorted(options.items()))
        if place not in self._taken:
            parts = self.assembled(devices, **options)
            first = place == (self.topologies.home.words,)
            if first:
                self._hidden = {name: (v, v.numpy()) for name, v in self.hidden(parts).items()}
            start = travelled(parts, SAVED, self.poll)
            if first:
                Checkpoints(self._folder, parts.state, keep=2).save()
            rest = travelled(parts, STEPS - SAVED, self.poll)
            if first:
                hidden = self._hidden.items()
                self.written = [name for name, (v, old) in hidden if _differ(v.numpy(), old)]
            path = {name: start.path[name] + rest.path[name] for name in start.path}
            whole = dataclasses.replace(rest, path=path, sums=start.sums + rest.sums)
            self._taken[place] = whole
        return self._taken[place]

    def continued(self, devices: Devices, **options: Any) -> Trajectory:
        """Gone on with on these devices from what was saved at home."""
        parts = self.on(devices, **options).parts
        return travelled(self.restored(parts), STEPS - SAVED, self.poll)

    def restored(self, parts: Parts) -> Parts:
        """Back at step `SAVED`, from the file that `home` saved.

        Raises:
          OSError: when what was saved is not what the state holds.
        """
        Checkpoints(self._folder, parts.state, keep=2).restore()
        return parts

    @property
    def arithmetic(self) -> str:
        """What layers round to, where one device and several are compared."""
        return bounds.arithmetic(self.config.precision.precision, self.topologies.one.are_gpus)

    @property
    def batch_norm(self) -> bool:
        """Whether rows of a batch see one another in the network."""
        return any(isinstance(m, models.BatchNorm) for m in self.home.parts.model.submodules)

    @property
    def batch(self) -> int:
        """Examples of a full batch."""
        return min(self.config.training.global_batch_size, len(self.source.train))

    @property
    def examples_scored(self) -> int:
        """How many are evaluated."""
        return len(getattr(self.source, self.scored))

    def close(self) -> None:
        """Stops what reads ahead, and leaves TensorFlow's global seed unset."""
        for parts in self.built:
            parts.close()
        tf.random.set_seed(None)


def _first_of(whole: pipelines.Source, batch: int) -> tuple[pipelines.Source, str]:
    """The first examples of train and of what is evaluated, and which split that is.

    Without a validation and a test split the training split is evaluated, as "validation".
    """
    available = len(whole.train)
    # The partial batch is more than half a one: on two devices neither gets nothing.
    count = min(FULL_BATCHES * batch + 5 * batch // 8, available)
    if count > batch > 1 and count % batch == 0:
        count -= 1
    train = whole.train.part(0, count, f"{whole.train.name}[:{count}]")
    scored = "test" if whole.validation is None and whole.test is not None else "validation"
    held_out = getattr(whole, scored)
    records = whole.train if held_out is None else held_out
    fitting = max(1, EVALUATION_BYTES // int(np.prod(whole.image_shape)))
    records = records.part(0, min(len(records), fitting), records.name)
    splits: dict[str, Any] = {"validation": None, "test": None, scored: records}
    return dataclasses.replace(whole, train=train, **splits), scored


def _maker(task: MakeTask | Task | None, config: Config) -> MakeTask:
    """What one run's task remembers must not reach another's: so none of them is shared."""
    if task is None:
        return lambda: assembly.classification(config)
    made: list[Task] = []

    def anew() -> Task:
        made.append(task())  # type: ignore[call-arg, arg-type]
        if any(made[-1] is other for other in made[:-1]):
            raise ValueError(
                "make_task gave the same task twice: give a function that makes a new one each "
                "time, or the task itself"
            )
        return made[-1]

    def copied() -> Task:
        try:
            return copy.deepcopy(task)  # type: ignore[return-value]
        except Exception as error:
            raise ValueError(
                f"the task cannot be copied ({error}): give a function that makes one"
            ) from error

    return copied if hasattr(task, "metrics") and not isinstance(task, type) else anew


def _differ(one: Any, other: Any) -> bool:
    return np.asarray(one).tobytes() != np.asarray(other).tobytes()
