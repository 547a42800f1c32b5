"""Config -> the parts of a run, put together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import tensorflow as tf

import models
import pipelines
from engine import built, compiling, distribute, feeding, schedule
from engine.augmenting import augmenter
from engine.config import Config
from engine.evaluate import Evaluation
from engine.loop import Loop
from engine.numerics.clipping import Clip
from engine.numerics.precision import compute_dtype
from engine.numerics.reduction import reductions
from engine.startup import Startup
from engine.state import TrainState
from engine.step import Step, evaluation_step
from engine.task import Classification, Task
from engine.workers.crew import Crew


@dataclass(frozen=True)
class Parts:
    """What a run is made of, ready to go."""

    config: Config
    strategy: tf.distribute.Strategy
    device: str  # in words
    source: pipelines.Source
    feed_kind: str  # "resident" or "stream"
    data_bytes: int  # of the decoded splits
    jit: str  # what XLA compiles: "off", "step" or "loop"
    task: Task
    schedule: schedule.Schedule
    state: TrainState
    loop: Loop
    evaluations: dict[str, Evaluation]  # "validation" and "test", where there is such a split
    steps_per_epoch: int
    total_steps: int
    feeds: feeding.Feeds
    data: pipelines.Identity

    def close(self) -> None:
        """Stops feeds that read ahead."""
        self.feeds.close()

    @property
    def model(self) -> models.Sequential:
        """The network."""
        return self.state.model

    @property
    def traces(self) -> dict[str, int]:
        """How often each compiled function was traced (L6); not those never called."""
        counted = {"train": self.loop.traces}
        counted |= {f"evaluate_{split}": e.traces for split, e in self.evaluations.items()}
        return {name: traces for name, traces in counted.items() if traces}


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """Steps of a whole run."""
    return config.training.steps(steps_per_epoch)


def classification(config: Config) -> Task:
    """What is learned where nothing else is given."""
    return Classification(config.optimization.label_smoothing)


def assemble(
    config: Config,
    task: Task | None = None,
    *,
    source: pipelines.Source | None = None,
    devices: distribute.Devices | None = None,
    crew: Crew | None = None,
    startup: Startup | None = None,
) -> Parts:
    """Puts a run together: devices, data, model, optimizer, state, loop.

    Args:
      config: all options.
      task: what is learned; None: classification, as the options say.
      source: what is learned from; None: as the options say.
      devices: to compute on; None: as the options say.
      crew: the workers, where there are several.
      startup: is told what took how long.

    Raises:
      ValueError: for an option that names something which is not there.
      RuntimeError: when TensorFlow fails, for want of memory say.
    """
    try:
        return _assemble(
            config,
            task or classification(config),
            source,
            devices,
            crew or Crew(),
            startup or Startup(),
        )
    except tf.errors.OpError as error:
        raise RuntimeError(f"cannot set the run up: {pipelines.reason(error)}") from error


def _assemble(
    config: Config,
    task: Task,
    source: pipelines.Source | None,
    devices: distribute.Devices | None,
    crew: Crew,
    startup: Startup,
) -> Parts:
    training, optimization, seed = config.training, config.optimization, config.run.seed
    # Threads and devices come before TensorFlow's first work.
    distribute.set_threads(training.intra_op_threads, training.inter_op_threads)
    if not training.intra_op_threads and compiling.may_be_small(config):
        startup.ended("devices")
        source = source or feeding.open_source(config)
        startup.ended("data")
        with contextlib.suppress(ValueError):  # TensorFlow has started: as it is, then
            distribute.set_threads(compiling.threads(config, source.image_shape, source.classes), 0)
    devices = devices or distribute.choose(training.strategy, training.virtual_devices, crew)
    strategy, device = devices
    shards = distribute.check_shards(training.shards, strategy)
    startup.ended("devices")
    source = source or feeding.open_source(config)
    startup.ended("data")
    steps_per_epoch = pipelines.steps_per_epoch(len(source.train), training.global_batch_size)
    steps = total_steps(config, steps_per_epoch)
    rate = built.schedule_of(config, steps)
    augmentation = pipelines.augmentation(config.data.augment, source.image_shape, source.dtype)

    with strategy.scope():
        model = built.network_of(config, source)
        # It starts as the model does: the same seed.
        average = built.network_of(config, source) if optimization.ema else None
        optimizer = built.optimizer_of(config)
        optimizer.create_slots(model.trainable_variables)
    state = TrainState(
        model,
        optimizer,
        task.metrics,
        average=average,
        make_loss_scale=lambda: built.loss_scale_of(config),
    )
    startup.ended("network")

    feed_kind, data_bytes = pipelines.choose_feed(config.data.feed, source)
    feeds = feeding.open_feeds(
        config,
        source,
        feed_kind,
        strategy,
        shards=shards,
        look_ahead=augmentation is not None and augmentation.mixes,
    )
    startup.ended("data")
    jit = compiling.choose(config, devices, model, (task, optimizer))
    compiled = jit != "off"
    synchronise, reduce = reductions(shards)
    dtype = compute_dtype(config.precision.precision)
    step = Step(
        model=model,
        task=task,
        optimizer=optimizer,
        schedule=rate,
        seed=seed,
        dtype=dtype,
        scaled=state.loss_scale.dynamic,
        clip=Clip(optimization.clip_norm, optimization.clip_value),
        average=average,
        ema=optimization.ema,
        augment=augmenter(augmentation, source.classes, seed, compiled) if augmentation else None,
        synchronise=synchronise,
        reduce=reduce,
        compiled=compiled,
    )
    scored = state.scored_model(config.stopping.evaluate_ema)
    score = evaluation_step(model=scored, task=task, dtype=dtype)
    return Parts(
        config=config,
        strategy=strategy,
        device=device,
        source=source,
        feed_kind=feed_kind,
        data_bytes=data_bytes,
        jit=jit,
        task=task,
        schedule=rate,
        state=state,
        loop=Loop(
            strategy,
            state,
            feeds.training,
            step,
            watched=bool(config.guarding.spike),
            jit=jit,
            apart=compiling.apart(jit, devices, model),
        ),
        evaluations={
            split: Evaluation(strategy, feed, score, task, crew.of_chief)
            for split, feed in feeds.held_out.items()
        },
        steps_per_epoch=steps_per_epoch,
        total_steps=steps,
        feeds=feeds,
        data=pipelines.identity_of(source, feeding.cache_dir(config)),
    )
