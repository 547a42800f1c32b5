"""Small trainings in this process, from the engine's own parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

import models
from engine import distribute, optimizers, schedule
from engine.evaluate import Evaluation
from engine.loop import Loop
from engine.state import TrainState
from engine.step import evaluation_step, training_step
from engine.task import Classification, Task
from pipelines.plan import Plan
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


def norm_network(input_shape: tuple, classes: int) -> list[models.Layer]:
    """A small network with batch norm and dropout."""
    del input_shape
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
            replicas=self.strategy.num_replicas_in_sync,
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
    network: Sequence[models.Layer] | None = None,
    shuffle: bool = True,
) -> Training:
    """Puts a training together on so many replicas."""
    strategy = strategy_of(replicas)
    task = Classification()
    with strategy.scope():
        layers = network if network is not None else norm_network(images.shape[1:], CLASSES)
        model = models.Sequential("network", list(layers), images.shape[1:], seed)
        rule = optimizers.build(optimizer)
        rule.create_slots(model.trainable_variables)
    state = TrainState(model, rule, task.metrics)
    plan = Plan(
        examples=len(images),
        global_batch_size=batch,
        replicas=replicas,
        seed=seed if shuffle else None,
    )
    feed = Resident(images, labels, plan, strategy)
    rate = schedule.build("constant", learning_rate=learning_rate, total_steps=10_000)
    step = training_step(model=model, task=task, optimizer=rule, schedule=rate, seed=seed)
    return Training(strategy, feed, state, Loop(strategy, state, feed, step), task)


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
