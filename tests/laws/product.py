"""Combinations of features on which the laws are tested.

A case is one choice for each factor. `-m full` selects the other cases; by default, a covering
design is run, in which every pair of choices of two factors occurs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.assembly.parts import Parts, assemble
from engine.config import flags
from engine.tasks.task import Task
from engine.verify.fault_injection import FaultInjectingTask
from tapeline import models
from tests.choices import Rare

STEPS = 20


class Case(NamedTuple):
    """A combination of features: one choice for each factor in `FACTORS`."""

    replicas: int
    precision: str
    accumulate: int
    clip_norm: float
    remainder: str
    ema: float
    feed: str
    model: str

    def __str__(self) -> str:
        return "-".join(map(str, self))


FACTORS: dict[str, tuple[Any, ...]] = {
    "replicas": (1, 2, Rare(4)),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "accumulate": (1, 4),
    "clip_norm": (0.0, 0.5),
    "remainder": ("exact", "partial"),
    "ema": (0.0, 0.9),
    "feed": ("resident", "stream"),
    "model": ("law_dropout", "law_norm"),
}


@models.register("law_dropout")
def law_dropout(outputs) -> list[models.Layer]:
    """Returns a network with a convolution, a max pool and dropout."""
    return [
        models.Convolution(4, activation="relu"),
        models.MaxPool(2),
        models.Flatten(),
        models.Dropout(0.4),
        models.Dense(outputs.shape[0]),
    ]


@models.register("law_norm")
def law_norm(outputs) -> list[models.Layer]:
    """Returns a network with a convolution, batch norm, a max pool and dropout."""
    return [
        models.Convolution(4),
        models.BatchNorm(),
        models.Activation("relu"),
        models.MaxPool(2),
        models.Flatten(),
        models.Dropout(0.4),
        models.Dense(outputs.shape[0]),
    ]


@models.register("law_linear")
def law_linear(outputs) -> list[models.Layer]:
    """Returns a smooth network, without ReLU and max pool."""
    layers = [models.Convolution(4), models.BatchNorm(), models.Flatten(), models.Dropout(0.4)]
    return [*layers, models.Dense(outputs.shape[0])]


def assembled(place: str, *, replicas: int = 1, task: Task | None = None, **options: Any) -> Parts:
    """Returns the parts of a run on the embedded digits, assembled as run.py does.

    Args:
      place: directory for the run directory and the cache.
      replicas: number of replicas; several are on virtual CPU devices.
      task: the task; None: that of the options.
      **options: values of command-line options by name.
    """
    values = {
        "run_dir": f"{place}/run",
        "cache_dir": f"{place}/cache",
        "strategy": "cpu" if replicas == 1 else "mirrored",
        "virtual_devices": 0 if replicas == 1 else replicas,
        "validation_split": "0",
        "test_split": "",
        "progress": "off",
        **options,
    }
    return assemble(flags.from_values(values), task)


def options_of(case: Case) -> dict[str, Any]:
    """Returns the options of a case, without the number of replicas."""
    exact = case.remainder == "exact"
    return {
        "precision": case.precision,
        "accumulate": case.accumulate,
        "clip_norm": case.clip_norm,
        "ema": case.ema,
        "feed": case.feed,
        "augment": "crop,randaugment:1:9,shift:1,rotation:10,mixup:0.3,cutmix",
        "model": case.model,
        # 5 full batches, or 4 and one of 5 examples; 2 and 4 replicas do not divide 18 or 5 evenly.
        "train_split": "train[:80]" if exact else "train[:77]",
        "global_batch_size": 16 if exact else 18,
    }


def poisoned_steps(
    parts: Parts, task: FaultInjectingTask, faults: dict[int, int], steps: int
) -> None:
    """Takes steps one by one, some of them with an infinite gradient.

    Args:
      parts: the run, whose task is `task`.
      task: the task, without a fault.
      faults: row of the global batch whose gradient is infinite, by step from 0.
      steps: number of steps.
    """
    for _ in range(steps):
        if (step := int(parts.state.step)) in faults:
            task.inject(faults[step], np.inf)
        parts.loop.run(1)
        task.heal()
