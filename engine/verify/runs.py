"""Assembles and trains the small runs of a configuration that the checks of the laws compare."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly import data, factories
from engine.assembly.parts import Parts, assemble, total_steps
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.config import compatibility
from engine.config.schema import Config, replaced
from engine.core import xla
from engine.distributed.strategies import Devices, set_threads, topologies
from engine.runtime.errors import Interrupted
from engine.tasks.task import Task
from engine.verify import bounds, forward, graph
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.sample import sample
from engine.verify.task_maker import MakeTask, task_maker
from engine.verify.trajectory import Trajectory, record_trajectory, take

STEPS = 16  # number of steps of a run
CHECKPOINT_STEP = 7  # step after which a checkpoint is saved; epochs end at steps 5, 10 and 15


class ReferenceRun(NamedTuple):
    """The run on the configured devices, with which the checks compare other runs."""

    trajectory: Trajectory
    written: list[str]  # names of the variables outside the state that its steps wrote
    scores: dict[str, float | int]  # mean loss and metrics of the evaluated split, by name

    @property
    def parts(self) -> Parts:
        """The assembled run that took the steps: options, network, state, feeds and loops."""
        return self.trajectory.parts


class VerificationRuns:
    """The small runs of one configuration, on one device and on several, assembled when needed.

    A run takes `STEPS` steps on a sample of the user's data, so that the run has several epochs,
    each with a partial batch if possible. All else is as configured, except the length of a short
    schedule (see `scheduled_steps`) and the options that the caller replaces.

    Args:
      config: all options.
      task: task, or function that makes one, as `make_task` of `verify`.
      directory: directory for decoded data and checkpoints.
      interrupted: returns whether to stop; polled by all methods that assemble, train or evaluate,
        which then raise Interrupted.

    Attributes:
      config: all options.
      built: all runs assembled so far, in order.
      topologies: configured devices, a single device, and several devices.
      sample: examples that the runs use.
      total_steps: number of steps of a training run with these options.
      scheduled_steps: length of the learning-rate schedule in steps: `total_steps`, but at least
        2 * `STEPS`.
      feed_kind: feed of the runs, "resident" or "stream".
      without_xla: options that disable XLA, by name; {} for `--jit=off`, for `--jit=auto` in
        float32, and for `--jit=step` with shards, or in float32 where several devices train.
      xla_note: text about `without_xla` for messages; "" if `without_xla` is {}.

    Raises:
      ValueError: for invalid input, as in training.
      OSError: if a file of the data set cannot be read.
    """

    def __init__(
        self,
        config: Config,
        task: MakeTask | Task | None,
        directory: str,
        interrupted: Callable[[], bool],
    ) -> None:
        compatibility.refuse(config)
        training, options = config.training, config.devices
        self.config = config
        self.built: list[Parts] = []
        self._directory, self._interrupted = directory, interrupted
        self._untracked: list[tuple[tf.Variable, np.ndarray]] = []
        self._trajectories: dict[tuple, Trajectory] = {}
        set_threads(options.intra_op_threads, options.inter_op_threads)
        self.topologies = topologies(options)
        if options.shards == 1:  # a single shard is on one device
            self.topologies = self.topologies._replace(many=self.topologies.one)
        # All runs scale by the numbers of the whole training split, as training does.
        source = pipelines.fitted(data.open_source(config), data.cache_dir(config))
        # After the devices: a task may create tensors.
        self._make_task = task_maker(task, config, source)
        self.sample = sample(source, training.global_batch_size)
        per_epoch = pipelines.steps_per_epoch(len(source.train), training.global_batch_size)
        self.total_steps = total_steps(config, per_epoch)
        # Length of the learning rate schedule in steps: as configured, at least twice `STEPS`.
        self.scheduled_steps = max(self.total_steps, 2 * STEPS)
        compatibility.check_length_options(config, self.total_steps)
        # Rejects options that are valid only with the longer `scheduled_steps`.
        factories.build_schedule(config, self.total_steps)
        self.feed_kind, _ = pipelines.choose_feed(config.data.feed, source)
        # Options that replace the user's when one device is compared with several. They disable
        # XLA, which compiles other shapes on several devices, or nothing, and rounds differently.
        # Results with and without it need not agree within the bounds; they do in float32 where
        # --jit=auto chooses XLA, for dense networks.
        exact = config.precision.precision == "float32"
        automatic = () if exact else ("auto",)
        # With shards, a compiled step has the same bits on any number of devices. Without, one that
        # is for one device alone may contain what cannot be compiled for several.
        several = self.topologies.configured.replicas > 1
        step = () if config.devices.shards or (exact and several) else ("step",)
        with_xla = config.loop.jit in ("loop", *step, *automatic)
        self.without_xla = {"jit": "off"} if with_xla else {}
        self.xla_note = f" with --jit=off, not {config.loop.jit}," if self.without_xla else ""

    def assembled(self, devices: Devices, **options: Any) -> Parts:
        """Assembles and returns a new run with a new task; `options` replace the configured ones.

        Stops prefetching in all other runs, sets another global seed of TensorFlow, and resets the
        variables outside the training state, which runs may share. Raises as `assemble`.
        """
        self._stop_prefetching()
        options = {
            "feed": self.feed_kind,
            "cache_dir": os.path.join(self._directory, "cache"),
            "train_steps": self.scheduled_steps,
            "progress": "off",
            **options,
        }
        config = replaced(self.config, **options)
        with xla.scope_of_parts(config.loop.jit, devices.strategy):
            made = self._make_task()
        task = FaultInjectingTask(made)
        parts = assemble(config, task, source=self.sample.source, devices=devices)
        # Another global seed for each run reveals random operations that ignore the run's seed.
        tf.random.set_seed(len(self.built))
        self.built.append(parts)
        for variable, value in self._untracked:  # reset, because runs may share these variables
            variable.assign(value)
        return parts

    def _poll(self) -> None:
        if self._interrupted():
            raise Interrupted

    def _stop_prefetching(self, running: Parts | None = None) -> None:
        """Stops prefetching in all runs except `running`, to free CPU threads for that run.

        Raises:
          Interrupted: if `interrupted` returns True.
        """
        self._poll()
        for parts in self.built:
            if parts is not running:
                parts.close()

    def take(self, parts: Parts, steps: int) -> Parts:
        """Takes `steps` training steps of a run, at most 3 per call of the graph; returns `parts`.

        Stops prefetching in all other runs.
        """
        self._stop_prefetching(parts)
        for done in range(0, steps, 3):
            self._poll()
            take(parts, min(3, steps - done))
        return parts

    def score(self, parts: Parts) -> dict[str, float | int]:
        """Evaluates a run on the held-out split of the sample.

        Stops prefetching in all other runs.

        Returns:
          The mean loss, the metrics and the number of "examples", by name.
        """
        self._stop_prefetching(parts)
        means = parts.evaluations[self.sample.scored].run(self._interrupted)
        if means is None:
            raise Interrupted
        return means

    @functools.cached_property
    def reference(self) -> ReferenceRun:
        """The run on the configured devices, trained and evaluated on first access.

        A checkpoint is saved after step `CHECKPOINT_STEP`.
        """
        parts = self.assembled(self.topologies.configured)
        known = [*parts.state.variables, *fault_injector(parts).switches]
        untracked = graph.untracked_variables(parts.loop.graph(), known)
        self._untracked = [(v, v.numpy()) for v in untracked]

        def before_step() -> None:
            self._poll()
            if int(parts.state.step) == CHECKPOINT_STEP:
                CheckpointManager(self._directory, parts.state, keep=2).save_and_wait()

        trajectory = record_trajectory(parts, STEPS, before_step)
        names = {
            id(each): name
            for name, value in vars(fault_injector(parts).task).items()
            for each in graph.components(value)
        }
        written = [
            names.get(id(v), v.name)  # a task names its variables, TensorFlow may not
            for v, old in self._untracked
            if v.numpy().tobytes() != old.tobytes()
        ]
        return ReferenceRun(trajectory, list(dict.fromkeys(written)), self.score(parts))

    def on(self, devices: Devices, **options: Any) -> Trajectory:
        """Returns the trajectory of the first `STEPS` steps of a run; it is cached by arguments.

        For the configured devices without other options, the run is that of `reference`; else
        `assembled` makes the run from the arguments.
        """
        key = (devices.description, *sorted(options.items()))
        if key == (self.topologies.configured.description,):
            return self.reference.trajectory
        if key not in self._trajectories:
            parts = self.assembled(devices, **options)
            self._trajectories[key] = record_trajectory(parts, STEPS, self._poll)
        return self._trajectories[key]

    def continued(self, devices: Devices, **options: Any) -> Trajectory:
        """Resumes the run of `on` from the checkpoint of `reference`; returns the trajectory.

        The trajectory has the steps from `CHECKPOINT_STEP` to `STEPS`.
        """
        parts = self.on(devices, **options).parts
        return record_trajectory(self.restored(parts), STEPS - CHECKPOINT_STEP, self._poll)

    def restored(self, parts: Parts) -> Parts:
        """Restores the state of a run from the checkpoint of `reference`; returns `parts`.

        Stops prefetching in all other runs.
        """
        self._stop_prefetching(parts)
        Restorer(self._directory, parts.state).newest()
        return parts

    def arithmetic(self, devices: Devices) -> str:
        """Returns the precision that layers round to on `devices`, as `bounds.arithmetic`."""
        return bounds.arithmetic(self.config.precision.precision, devices.are_gpus)

    @property
    def single(self) -> Devices:
        """The configured devices if they hold one replica, else a single device of their kind."""
        configured, one = self.topologies.configured, self.topologies.one
        return configured if configured.replicas == 1 else one

    @property
    def per_microbatch(self) -> bool:
        """Whether a traced training step draws random numbers that depend on the micro-batch."""
        return "per_microbatch" in fault_injector(self.reference.parts).drawn

    @functools.cached_property
    def cross_example(self) -> bool:
        """Whether the model's outputs for an example depend on other examples of the batch.

        This is measured by `crosses_examples` on first access.
        """
        bound = bounds.step_metric_bound(self.arithmetic(self.single))
        return forward.crosses_examples(self.on(self.single).parts, self.sample, bound)

    def close(self) -> None:
        """Stops prefetching in all runs, and unsets TensorFlow's global seed."""
        for parts in self.built:
            parts.close()
        tf.random.set_seed(None)


def fault_injector(parts: Parts) -> FaultInjectingTask:
    """Returns the task, which can inject faults, of a run that `VerificationRuns` assembled."""
    assert isinstance(parts.task, FaultInjectingTask)
    return parts.task
