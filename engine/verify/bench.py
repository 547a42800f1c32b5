"""Small runs of one configuration, put together as often as the laws need them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import models
import pipelines
from engine import assembly, built, contradictions, feeding
from engine.assembly import Parts
from engine.config import Config, replaced
from engine.distribute import Devices, set_threads, topologies
from engine.keeping.checkpoints import Checkpoints
from engine.keeping.restorer import Restorer
from engine.task import Task
from engine.verify import bounds, graph
from engine.verify.poison import Poisoned
from engine.verify.sample import sample
from engine.verify.trajectory import Trajectory, take, travelled

STEPS = 16  # of a run
SAVED = 7  # the step after which it is saved; epochs end at steps 5, 10 and 15

MakeTask = Callable[[], Task]


class Home(NamedTuple):
    """The run that others are held against.

    whole: all of its steps.
    written: variables outside of the state that its steps wrote, by name.
    scores: means over what is evaluated, after the last step.
    """

    whole: Trajectory
    written: list[str]
    scores: dict[str, float | int]


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Somebody asked to stop."""


class Bench:
    """Puts runs of one configuration together, on one device and on several.

    A run takes a few steps over a sample of the user's data, so that epochs end on the way, with a
    partial batch. All else is as the user configured it, the length of the schedule too.

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
        contradictions.refuse(config)
        training = config.training
        self.config = config
        self.built: list[Parts] = []
        self._folder, self._interrupted = folder, interrupted
        self._hidden: list[tuple[tf.Variable, np.ndarray]] = []
        self._taken: dict[tuple, Trajectory] = {}
        set_threads(training.intra_op_threads, training.inter_op_threads)
        self.topologies = topologies(training.strategy, training.virtual_devices)
        self._make_task = _maker(task, config)  # its task may make tensors
        if training.shards == 1:  # the one shard of a batch is on one device
            self.topologies = self.topologies._replace(many=self.topologies.one)
        whole = feeding.open_source(config)
        self.sample = sample(whole, training.global_batch_size)
        per_epoch = pipelines.steps_per_epoch(len(whole.train), training.global_batch_size)
        self.total_steps = assembly.total_steps(config, per_epoch)
        contradictions.refuse_for_length(config, self.total_steps)
        built.schedule_of(config, self.total_steps)  # refuses what the longer one below would not
        self.feed_kind, _ = pipelines.choose_feed(config.data.feed, whole)

    @property
    def scheduled_steps(self) -> int:
        """Length of the schedule: that of the run, which goes on after what is taken here."""
        return max(self.total_steps, 2 * STEPS)

    @property
    def across(self) -> dict[str, Any]:
        """Options for what one and several devices are compared by.

        XLA compiles for one device alone, and rounds otherwise than TensorFlow's executor: of two
        programs neither would be held to the bits, or the rounding, of the other.
        """
        return {"jit": "off"} if self.config.training.jit in ("step", "loop") else {}

    @property
    def without_xla(self) -> str:
        """The same in words, to follow a number of devices; empty where nothing is changed."""
        return f" with --jit=off, not {self.config.training.jit}," if self.across else ""

    # --- parts --------------------------------------------------------------------------------

    def assembled(self, devices: Devices, **options: Any) -> Parts:
        """A run put together anew, with a task of its own.

        Args:
          devices: to compute on.
          **options: in place of the user's.
        """
        self._turn_to(None)
        # What is random without the run's seed is to show: nothing may follow these.
        tf.random.set_seed(len(self.built))
        chosen = {
            "feed": self.feed_kind,
            "cache_dir": os.path.join(self._folder, "cache"),
            "train_steps": self.scheduled_steps,
            "progress": "off",
            **options,
        }
        task = Poisoned(self._make_task())
        parts = assembly.assemble(
            replaced(self.config, **chosen), task, source=self.sample.source, devices=devices
        )
        self.built.append(parts)
        for variable, value in self._hidden:  # one that all runs share starts anew with each
            variable.assign(value)
        return parts

    def _strangers(self, parts: Parts) -> list[tf.Variable]:
        """Variables that a step reads or writes and that are not in the state."""
        ours = poisoned(parts).switches
        found = graph.strangers(parts.loop.graph(), parts.state)
        return [v for v in found if not any(v is own for own in ours)]

    # --- steps --------------------------------------------------------------------------------

    def poll(self) -> None:
        """Stops here, if somebody asked for it."""
        if self._interrupted():
            raise Interrupted

    def _turn_to(self, parts: Parts | None) -> None:
        """Stops what other runs read ahead, which takes threads that this one needs."""
        self.poll()
        for other in self.built:
            if other is not parts:
                other.close()

    def take(self, parts: Parts, steps: int) -> Parts:
        """Takes steps, a few at once."""
        self._turn_to(parts)
        for done in range(0, steps, 3):
            self.poll()
            take(parts, min(3, steps - done))
        return parts

    def score(self, parts: Parts) -> dict[str, float | int]:
        """Means over what is evaluated."""
        self._turn_to(parts)
        means = parts.evaluations[self.sample.scored].run(self._interrupted)
        if means is None:
            raise Interrupted
        return means

    # --- what the laws compare ----------------------------------------------------------------

    @functools.cached_property
    def home(self) -> Home:
        """The run on the devices that it trains on."""
        parts = self.assembled(self.topologies.home)
        self._hidden = [(v, v.numpy()) for v in self._strangers(parts)]
        start = travelled(parts, SAVED, self.poll)
        Checkpoints(self._folder, parts.state, keep=2).save_now()
        rest = travelled(parts, STEPS - SAVED, self.poll)
        written = [v.name for v, before in self._hidden if _differ(v.numpy(), before)]
        path = {name: start.path[name] + rest.path[name] for name in start.path}
        whole = dataclasses.replace(rest, path=path, sums=start.sums + rest.sums)
        return Home(whole, written, self.score(parts))

    def on(self, devices: Devices, **options: Any) -> Trajectory:
        """The run on these devices, from its first step; taken once.

        Args:
          devices: to compute on.
          **options: in place of the user's.
        """
        place = (devices.words, *sorted(options.items()))
        if place == (self.topologies.home.words,):
            return self.home.whole
        if place not in self._taken:
            parts = self.assembled(devices, **options)
            self._taken[place] = travelled(parts, STEPS, self.poll)
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
        self._turn_to(parts)
        Restorer(self._folder, parts.state).newest()
        return parts

    def arithmetic(self, devices: Devices) -> str:
        """What layers round to on these devices."""
        return bounds.arithmetic(self.config.precision.precision, devices.are_gpus)

    @property
    def batch_norm(self) -> bool:
        """Whether rows of a batch see one another in the network."""
        return any(isinstance(m, models.BatchNorm) for m in self.home.whole.parts.model.submodules)

    def close(self) -> None:
        """Stops what reads ahead, and leaves TensorFlow's global seed unset."""
        for parts in self.built:
            parts.close()
        tf.random.set_seed(None)


def poisoned(parts: Parts) -> Poisoned:
    """What a run that was put together here learns."""
    assert isinstance(parts.task, Poisoned)
    return parts.task


def _maker(task: MakeTask | Task | None, config: Config) -> MakeTask:
    """What one run's task remembers must not reach another's: so none of them is shared."""
    if task is None:
        return lambda: assembly.classification(config)

    def copied() -> Task:
        try:
            return copy.deepcopy(task)  # type: ignore[return-value]
        except Exception as error:
            raise ValueError(
                f"the task cannot be copied ({error}): give a function that makes one"
            ) from error

    if hasattr(task, "metrics") and not isinstance(task, type):
        return copied
    if task() is task():
        raise ValueError(
            "make_task gave the same task twice: give a function that makes a new one each time, "
            "or the task itself"
        )
    return task


def _differ(one: Any, other: Any) -> bool:
    return np.asarray(one).tobytes() != np.asarray(other).tobytes()
