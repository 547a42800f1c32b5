"""Small trainings in this process, from the engine's own parts."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

import models
from engine import distribute, optimizers, schedule
from engine.clipping import Clip
from engine.evaluate import Evaluation
from engine.loop import Loop
from engine.precision import LossScale, compute_dtype
from engine.reduction import reductions
from engine.state import TrainState
from engine.step import Step, evaluation_step
from engine.task import Classification, Task
from pipelines.plan import Layout, Plan
from pipelines.resident import Resident

CLASSES = 3


def strategy_of(replicas: int) -> tf.distribute.Strategy:
    """The default strategy, or so many virtual CPU devices mirrored."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    return distribute.mirrored("CPU", replicas)


def pictures(examples: int, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images with labels that can be learned: (uint8 [n, size, size, 1], int32 [n])."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, examples).astype(np.int32)
    images = random.integers(0, 128, (examples, size, size, 1), np.uint8)
    images += (labels * 60).astype(np.uint8)[:, None, None, None]
    return images, labels


def norm_network(classes: int = CLASSES) -> list[models.Layer]:
    """A small network with batch norm and dropout."""
    return [
        models.Convolution(4, activation="relu"),
        models.BatchNorm(),
        models.MaxPool(2),
        models.Flatten(),
        models.Dropout(0.5),
        models.Dense(classes),
    ]


@dataclass
class Training:
    """A training put together, ready to take steps."""

    strategy: tf.distribute.Strategy
    feed: Resident
    state: TrainState
    loop: Loop
    task: Task

    def weights(self) -> list[np.ndarray]:
        """All variables of the model, statistics included."""
        return [variable.numpy() for variable in self.state.model.variables]

    def take(self, steps: int) -> Training:
        """Takes steps, epoch by epoch."""
        while steps:
            step = int(self.state.step)
            portion = min(steps, self.feed.steps_per_epoch - step % self.feed.steps_per_epoch)
            self.loop.run(portion)
            steps -= portion
        return self

    def evaluate(self, images: np.ndarray, labels: np.ndarray, batch: int) -> dict:
        """Means over a split."""
        plan = Plan(
            examples=len(images),
            global_batch_size=batch,
            layout=Layout(self.strategy.num_replicas_in_sync),
            seed=None,
        )
        feed = Resident(images, labels, plan, self.strategy)
        step = evaluation_step(model=self.state.model, task=self.task)
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
    optimizer: str = "adam",
    learning_rate: float = 0.01,
    network: Callable[[], Sequence[models.Layer]] = norm_network,
    shuffle: bool = True,
    precision: str = "float32",
    accumulate: int = 1,
    shards: int = 0,
    clip: Clip | None = None,
    ema: float = 0.0,
    task: Task | None = None,
) -> Training:
    """Puts a training together on so many replicas."""
    strategy = strategy_of(replicas)
    task = task or Classification()

    def made() -> models.Sequential:
        return models.Sequential("network", list(network()), images.shape[1:], seed)

    with strategy.scope():
        model = made()
        average = made() if ema else None
        rule = optimizers.build(optimizer)
        rule.create_slots(model.trainable_variables)
    state = TrainState(
        model,
        rule,
        task.metrics,
        average=average,
        make_loss_scale=lambda: LossScale(precision),
    )
    plan = Plan(
        examples=len(images),
        global_batch_size=batch,
        layout=Layout(replicas, accumulate, shards),
        seed=seed if shuffle else None,
    )
    feed = Resident(images, labels, plan, strategy)
    rate = schedule.build("constant", learning_rate=learning_rate, total_steps=10_000)
    synchronise, reduce = reductions(shards)
    step = Step(
        model=model,
        task=task,
        optimizer=rule,
        schedule=rate,
        seed=seed,
        dtype=compute_dtype(precision),
        scaled=state.loss_scale.dynamic,
        clip=clip,
        average=average,
        ema=ema,
        synchronise=synchronise,
        reduce=reduce,
    )
    return Training(strategy, feed, state, Loop(strategy, state, feed, step), task)


def tf_configs(workers: int) -> list[str]:
    """TF_CONFIG of each of some workers on the loopback address, at ports that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": task}})
        for task in range(workers)
    ]


def relative_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The largest relative difference of corresponding tensors, in norm."""
    return max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-12))
        for a, b in zip(one, other, strict=True)
    )


def same_bits(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Whether all tensors are equal to the bit."""
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True)
    )
