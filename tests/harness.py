"""Small training runs in the test process, built directly from the engine's components."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.core.loop import Loop
from engine.core.state import TrainState
from engine.core.step import Step
from engine.distributed import strategies
from engine.distributed.reduction import reductions
from engine.models import properties
from engine.optim import schedules
from engine.optim.base import Optimizer
from engine.optim.build import build_optimizer
from engine.optim.clipping import Clip
from engine.optim.precision import LossScale, compute_dtype
from engine.tasks.classification import Classification
from engine.tasks.task import Task
from pipelines import Feed
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tests import rounding

CLASSES = 3


def strategy_of(replicas: int) -> tf.distribute.Strategy:
    """Returns TensorFlow's default strategy for one replica, a mirrored strategy for several.

    The replicas of the mirrored strategy are on virtual CPU devices.
    """
    if replicas == 1:
        return tf.distribute.get_strategy()
    return strategies.mirrored("CPU", replicas)


def pictures(examples: int, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8 [examples, size, size, 1], and labels, int32 [examples].

    The labels are from 0 to 2; the mean pixel value of an image depends on the label.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, examples).astype(np.int32)
    images = random.integers(0, 128, (examples, size, size, 1), np.uint8)
    images += (labels * 60).astype(np.uint8)[:, None, None, None]
    return images, labels


def scaled(inputs: Any) -> Any:
    """Returns uint8 images, a tensor of rank 4, as float32 from 0 to 1; other inputs unchanged."""
    image = inputs.dtype == tf.uint8 and inputs.shape.rank == 4
    return tf.cast(inputs, tf.float32) / 255 if image else inputs


def norm_network(classes: int = CLASSES) -> list[models.Layer]:
    """Returns the layers of a small network with batch norm, dropout, ReLU and a max pool."""
    return [
        models.Convolution(4, activation="relu"),
        models.BatchNorm(),
        models.MaxPool(2),
        models.Flatten(),
        models.Dropout(0.5),
        models.Dense(classes),
    ]


def smooth_network(classes: int = CLASSES) -> list[models.Layer]:
    """Returns the layers of `norm_network` without ReLU and max pool.

    In those layers, a rounding error can switch which unit gets the gradient.
    """
    return [
        models.Convolution(4),
        models.BatchNorm(),
        models.Flatten(),
        models.Dropout(0.5),
        models.Dense(classes),
    ]


NETWORKS = {"smooth": (smooth_network, False), "switches": (norm_network, True)}


@dataclass
class Training:
    """A small training run: its strategy, feed, state, loop and task."""

    strategy: tf.distribute.Strategy
    feed: Feed
    state: TrainState
    loop: Loop
    task: Task

    def weights(self) -> list[np.ndarray]:
        """Returns all variables of the model as arrays, including batch norm statistics."""
        return [variable.numpy() for variable in self.state.model.variables]

    def take(self, steps: int) -> Training:
        """Trains a number of steps, which may cross epochs; returns `self`."""
        while steps:
            step = int(self.state.step)
            portion = min(steps, self.feed.steps_per_epoch - step % self.feed.steps_per_epoch)
            steps -= self.loop.run(portion).steps
        return self

    def everywhere(self) -> dict[str, bytes]:
        """Returns the bytes of each state variable on each replica, by "index/name/replica"."""
        return {
            f"{place}/{variable.name}/{replica}": copy.numpy().tobytes()
            for place, variable in enumerate(self.state.variables)
            for replica, copy in enumerate(self.strategy.experimental_local_results(variable))
        }

    def take_measured(self, steps: int) -> dict[str, float]:
        """Trains a number of steps; returns the sum of each variable's update norms, by name."""
        path = {variable.name: 0.0 for variable in self.state.model.variables}
        for _ in range(steps):
            before = self.weights()
            self.take(1)
            for variable, old in zip(self.state.model.variables, before, strict=True):
                path[variable.name] += float(np.linalg.norm(variable.numpy() - old))
        return path

    def evaluate(self, images: np.ndarray, labels: np.ndarray, batch: int, shards: int = 0) -> dict:
        """Evaluates the model; returns mean loss and metrics by name, and the number of "examples".

        Args:
          images: inputs, [n, ...].
          labels: targets, [n].
          batch: global batch size.
          shards: number of shards; 0: none.
        """
        plan = BatchPlan(
            examples=len(images),
            global_batch_size=batch,
            layout=BatchLayout(self.strategy.num_replicas_in_sync, shards=shards),
            seed=None,
        )
        feed = InMemoryFeed(images, labels, plan, self.strategy)
        step = evaluation_step(model=self.state.model, task=self.task, preprocess=scaled)
        means = Evaluation(self.strategy, feed, step, self.task).run()
        assert means is not None
        return means


def training(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    replicas: int = 1,
    batch: int = 8,
    seed: int = 0,
    network: Callable[[], Sequence[models.Layer]] = norm_network,
    shuffle: bool = True,
    accumulate: int = 1,
    shards: int = 0,
    task: Task | None = None,
    **options: Any,
) -> Training:
    """Builds a training of a network on images.

    Args:
      images: inputs, [n, ...].
      labels: targets, int32 [n].
      replicas: number of replicas.
      batch: global batch size.
      seed: seed of the initial weights, the order and dropout.
      network: returns the layers.
      shuffle: whether to shuffle the examples.
      accumulate: number of micro-batches.
      shards: number of shards; 0: none.
      task: the task; None: classification.
      **options: further arguments of `put_together`.
    """
    layout = BatchLayout(replicas, accumulate, shards)
    plan = BatchPlan(
        examples=len(images),
        global_batch_size=batch,
        layout=layout,
        seed=seed if shuffle else None,
    )
    return put_together(
        lambda: models.Sequential("network", list(network()), images.shape[1:], seed),
        lambda strategy: InMemoryFeed(images, labels, plan, strategy),
        task or Classification(),
        layout=layout,
        seed=seed,
        **options,
    )


def put_together(
    make_model: Callable[[], tf.Module],
    make_feed: Callable[[tf.distribute.Strategy], Feed],
    task: Task,
    *,
    layout: BatchLayout,
    seed: int = 0,
    optimizer: str = "adam",
    rule: Mapping[str, Any] | None = None,
    learning_rate: float = 0.01,
    rate: schedules.WarmupSchedule | None = None,
    precision: str = "float32",
    make_loss_scale: Callable[[], LossScale] | None = None,
    clip: Clip | None = None,
    ema: float = 0.0,
    jit: str = "off",
    wrap: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
) -> Training:
    """Builds a training from its components.

    Args:
      make_model: returns the model; called in the strategy's scope.
      make_feed: returns the feed for a strategy.
      task: the task.
      layout: numbers of replicas, micro-batches and shards.
      seed: dropout seed.
      optimizer: optimizer name.
      rule: options of the optimizer.
      learning_rate: constant learning rate.
      rate: learning-rate schedule; None: the constant `learning_rate`.
      precision: name of the precision policy.
      make_loss_scale: returns the loss scale; None: that of the policy.
      clip: gradient clipping; None: no clipping.
      ema: decay of the EMA of the weights; 0: no EMA.
      jit: what XLA compiles: "off", "step" or "loop".
      wrap: returns the optimizer to train with, for that which `optimizer` and `rule` name.
    """
    strategy = strategy_of(layout.replicas)
    with strategy.scope():
        model = make_model()
        average = make_model() if ema else None
        variables = properties.named_variables(model)
        moves = wrap(build_optimizer(optimizer, variables=variables, **(rule or {})))
        moves.create_slots(model.trainable_variables)
    state = TrainState(
        model,
        moves,
        task.metrics,
        ema=average,
        make_loss_scale=make_loss_scale or (lambda: LossScale(precision)),
    )
    feed = make_feed(strategy)
    constant = schedules.build_schedule("constant", learning_rate=learning_rate, total_steps=10_000)
    synchronise, reduce = reductions(layout.shards)
    step = Step(
        model=model,
        task=task,
        optimizer=moves,
        schedule=rate or constant,
        seed=seed,
        dtype=compute_dtype(precision),
        scaled=state.loss_scale.dynamic,
        clip=clip,
        average=average,
        ema=ema,
        preprocess=scaled,
        synchronise=synchronise,
        reduce=reduce,
        compiled=jit != "off",
        compiled_gradients=jit != "off",
    )
    return Training(strategy, feed, state, Loop(strategy, state, feed, step, jit=jit), task)


def tf_configs(workers: int) -> list[str]:
    """Returns a value of TF_CONFIG for each worker, with free ports of the loopback address."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": task}})
        for task in range(workers)
    ]


def rates_of(rate: schedules.WarmupSchedule, steps: Iterable[int]) -> np.ndarray:
    """Returns a schedule's learning rates at the given steps, float64 [steps], from one graph."""
    compiled = tf.function(rate, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    values = [compiled(tf.constant(step, tf.int64)) for step in steps]
    assert all(value.dtype == tf.float64 and value.shape == [] for value in values)
    return np.array(values)


def relative_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Returns the largest relative difference of two corresponding arrays, in norm.

    The norm of the difference is divided by that of the first array, at least 1e-12.
    """
    return max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-12))
        for a, b in zip(one, other, strict=True)
    )


def assert_rounding_apart(
    one: Training,
    other: Training,
    path: Mapping[str, float],
    *,
    optimizer: str,
    batch: int,
    switches: bool,
) -> None:
    """Asserts that the weights of two trainings differ within the bounds of tests/rounding.py.

    Args:
      one: the first training.
      other: training from the same initial weights, after the same number of steps.
      path: sum of update norms of each variable of `one`, by name.
      optimizer: optimizer name.
      batch: examples per step.
      switches: whether the network has ReLUs or max pools.
    """
    steps = int(one.state.step)
    assert int(other.state.step) == steps
    error = rounding.of_sums(*rounding.lengths(one.state.model, batch))
    error = rounding.of_switches(error) if switches else error
    for ours, theirs in zip(one.state.model.variables, other.state.model.variables, strict=True):
        value, name = ours.numpy(), ours.name
        moves = rounding.of_moves(error, optimizer, value.shape)
        allowed = rounding.of_weights(moves, path[name], float(np.linalg.norm(value)), steps)
        assert np.linalg.norm(value - theirs.numpy()) <= allowed, name


def same_bits(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Returns whether corresponding arrays, of two sequences of one length, have equal bytes."""
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True)
    )
