"""Assembly of a run from a Config: data, devices, network, optimizer, state and loops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

import pipelines
from engine.assembly import data, device_memory, factories, precision, threads
from engine.assembly.compiled_step import StepExamination
from engine.assembly.initial_state import initial_state
from engine.config.option import names_in
from engine.config.schema import Config
from engine.core import xla
from engine.core.augmentation import augmenter
from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.core.loop import Loop
from engine.core.state import TrainState
from engine.core.step import Step
from engine.core.views import mean_over_views
from engine.distributed import gpus, strategies
from engine.distributed.collectives import HostCollectives
from engine.distributed.reduction import reductions
from engine.models.recomputed_modules import recompute
from engine.optim.clipping import Clip
from engine.optim.precision import compute_dtype
from engine.optim.schedules import WarmupSchedule
from engine.runtime.startup import Startup
from engine.tasks.task import Task


@dataclass(frozen=True)
class Parts:
    """The components of a run: options, strategy, data, network and state, compiled loops."""

    config: Config
    strategy: tf.distribute.Strategy
    device: str  # description of all devices, for display
    source: pipelines.Source
    feed_kind: str  # "resident" (in-memory feed) or "stream" (streaming feed)
    data_bytes: int  # size of the decoded splits, bytes
    jit: str  # what XLA compiles: "off", "step" or "loop"
    jit_reason: str  # why `--jit=auto` has chosen that; "" if the option decides
    jit_obstacle: str | None  # StepExamination.result
    task: Task
    schedule: WarmupSchedule
    state: TrainState
    loop: Loop
    evaluations: dict[str, Evaluation]  # by name of the split, as `Source.held_out`
    steps_per_epoch: int
    total_steps: int
    feeds: data.Feeds
    data: pipelines.DataIdentity  # digests of the examples
    recomputed: tuple[str, ...]  # names of the modules that --recompute selects
    views: tuple[pipelines.WeightedView, ...]  # of --evaluation_views; (): the inputs alone

    def close(self) -> None:
        """Closes all feeds, which stops their prefetching."""
        for feed in (self.feeds.training, *self.feeds.held_out.values()):
            feed.close()

    def trace(self) -> None:
        """Traces the training loop; with `--load`, also the evaluation loops.

        Therefore an error in a user's model, task or optimizer is raised here, not in a step.
        """
        self.loop.graph()
        if self.config.run.load:
            for evaluation in self.evaluations.values():
                evaluation.graph()

    def validation_scores(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of result.json about validation.

        "validation" has the scores of the first validation set; None: there is none. With named
        sets, "validation_sets" has the scores of each by name.

        Args:
          results: scores by name of the evaluated split.
        """
        scores = {name: results[name] for name in self.source.validation_sets}
        first = next(iter(scores.values()), None)
        named = {} if scores.keys() <= {"validation"} else {"validation_sets": scores}
        return {"validation": first, **named}

    @property
    def needs_length(self) -> str:
        """What of a step depends on the number of steps of the run, for a message; "": nothing."""
        options = self.config.optimizer
        if self.schedule.depends_on_length:
            return f"the {self.config.schedule.schedule} schedule"
        return "--lookahead_power" if options.lookahead and options.lookahead_power else ""

    @property
    def model(self) -> tf.Module:
        """The network that is trained."""
        return self.state.model

    @property
    def evaluated(self) -> tf.Module:
        """The network that is evaluated: that of `model` or of its EMA, over the views, if any."""
        scored = self.state.scored_model(self.config.evaluation.evaluate_ema)
        return mean_over_views(scored, self.views)

    @property
    def traces(self) -> dict[str, int]:
        """Number of traces by function, for traced functions only: "train", "evaluate_SPLIT"."""
        counts = {"train": self.loop.traces}
        counts |= {f"evaluate_{split}": e.traces for split, e in self.evaluations.items()}
        return {name: traces for name, traces in counts.items() if traces}


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """Returns the run's number of steps: `--train_steps` unless 0, else that of all `--epochs`."""
    return config.training.steps(steps_per_epoch)


@contextlib.contextmanager
def _runtime_errors() -> Iterator[None]:
    """Converts a `tf.errors.OpError` of the block to a RuntimeError with a one-line message."""
    try:
        yield
    except tf.errors.OpError as error:
        raise RuntimeError(f"cannot set the run up: {pipelines.reason(error)}") from error


@_runtime_errors()
def assemble(
    config: Config,
    task: Task | None = None,
    *,
    source: pipelines.Source | None = None,
    devices: strategies.Devices | None = None,
    collectives: HostCollectives | None = None,
    startup: Startup | None = None,
) -> Parts:
    """Builds a run: devices, data, model, optimizer, state and loops.

    Sets TensorFlow's threads and devices, so TensorFlow should not have run any operation before.
    The result's options have the precision that `--precision=auto` is resolved to.

    Args:
      config: options of the run.
      task: task to train; None: the one that the options specify.
      source: data set; None: the one that the options select.
      devices: strategy and devices; None: those that the options select.
      collectives: collectives of the workers; None: there is one worker.
      startup: timer that records the duration of each part of the assembly; None: no record.

    Raises:
      ValueError: for an option that does not fit the data set, the devices or the model, for
        damaged data, or if TensorFlow has started with other threads or too few devices.
      RuntimeError: when TensorFlow fails, for example when it runs out of memory.
      OSError: when a split cannot be read.
    """
    collectives, startup = collectives or HostCollectives(), startup or Startup()
    options, seed = config.devices, config.run.seed
    # Threads and devices must be set before TensorFlow's first operation.
    strategies.set_threads(options.intra_op_threads, options.inter_op_threads)
    if not options.intra_op_threads and threads.may_be_small(config):
        startup.ended("devices")
        source = source or data.open_source(config)
        startup.ended("data")
        with contextlib.suppress(ValueError):  # TensorFlow has started: its threads are fixed
            strategies.set_threads(threads.threads(config, source), 0)
    devices = devices or strategies.choose(options, collectives)
    strategy, device = devices
    config = precision.resolved(config, collectives)
    shards = strategies.check_shards(options.shards, strategy)
    startup.ended("devices")
    source = pipelines.fitted(source or data.open_source(config), data.cache_dir(config))
    startup.ended("data")
    with xla.scope_of_parts(config.loop.jit, strategy):
        task = task or factories.build_task(config, source)
    views = factories.build_views(config, source, task)
    steps_per_epoch = pipelines.steps_per_epoch(
        len(source.train), config.training.global_batch_size
    )
    steps = total_steps(config, steps_per_epoch)
    with xla.scope_of_parts(config.loop.jit, strategy):
        schedule = factories.build_schedule(config, steps)
    augmentation = pipelines.augmentation_of(config.data.augment, source)

    state = initial_state(config, source, task, schedule, steps, strategy)
    model = state.model
    startup.ended("network")

    synchronise, reduce = reductions(shards)
    layout = pipelines.BatchLayout(devices.replicas, config.training.accumulate, shards)
    rows = device_memory.division(config, layout, len(source.train)).rows()
    step = Step(
        model=model,
        task=task,
        optimizer=state.optimizer,
        schedule=schedule,
        seed=seed,
        dtype=compute_dtype(config.precision.precision),
        scaled=state.loss_scale.dynamic,
        clip=Clip(config.optimizer.clip_norm, config.optimizer.clip_value),
        average=state.ema,
        ema=config.optimizer.ema,
        preprocess=source.preprocess,
        synchronise=synchronise,
        reduce=reduce,
        compiled=True,
        compiled_gradients=True,
    )
    examination = StepExamination(config, source, step, rows)
    jit, jit_reason = xla.choose(
        config.loop.jit,
        devices,
        model,
        (task, state.optimizer, *task.metrics.values()),
        shards=shards,
        augments=augmentation is not None,
        obstacle=examination,
    )
    early_exit = not devices.are_gpus
    compiled = jit != "off" and xla.compiles_gradients(model, devices.replicas, shards)
    compiled_for = ("GPU" if devices.are_gpus else "CPU") if compiled else ""
    recomputed = recompute(model, names_in(config.model.recompute), compiled_for)
    augment = None
    if augmentation:
        augment = augmenter(augmentation, source.classes, seed, compiled, source.preprocess)
    step = replace(
        step,
        augment=augment,
        synchronise=xla.synchronise(synchronise, devices.replicas, compiled),
        compiled=jit != "off",
        compiled_gradients=compiled,
    )
    mixes = augmentation is not None and augmentation.mixes

    def fits(size: int) -> bool:
        """Returns whether each device has room for data of `size` bytes beside a step."""
        free = gpus.free_memory(options.gpu_memory_mb) if devices.are_gpus else None
        replaced = device_memory.replaced_bytes(state, early_exit=early_exit, jit=jit)
        return device_memory.data_fits(
            size,
            lambda: device_memory.training_memory(step, source, rows, mixes, replaced),
            rows,
            free,
        )

    feed_kind, data_bytes = pipelines.choose_feed(config.data.feed, source, fits)
    room = f"the decoded examples take {device_memory.size(data_bytes)} of each device: give "
    with device_memory.memory_for(room + "--feed=stream, which changes no result"):
        feeds = data.open_feeds(
            config, source, feed_kind, strategy, shards=shards, augmentation=augmentation
        )
    startup.ended("data")
    evaluated = mean_over_views(state.scored_model(config.evaluation.evaluate_ema), views)
    evaluate = evaluation_step(
        model=evaluated, task=task, dtype=step.dtype, preprocess=source.preprocess
    )
    return Parts(
        config=config,
        strategy=strategy,
        device=device,
        source=source,
        feed_kind=feed_kind,
        data_bytes=data_bytes,
        jit=jit,
        jit_reason=jit_reason,
        jit_obstacle=examination.result,
        task=task,
        schedule=schedule,
        state=state,
        loop=Loop(
            strategy,
            state,
            feeds.training,
            step,
            watched=bool(config.bad_steps.spike),
            jit=jit,
            apart=xla.apart(jit, devices, model),
            early_exit=early_exit,
        ),
        evaluations={
            split: Evaluation(strategy, feed, evaluate, task, collectives.broadcast)
            for split, feed in feeds.held_out.items()
        },
        steps_per_epoch=steps_per_epoch,
        total_steps=steps,
        feeds=feeds,
        data=pipelines.data_identity(source, data.cache_dir(config)),
        recomputed=tuple(recomputed),
        views=views,
    )
