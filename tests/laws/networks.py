"""The built-in networks that have arguments: their options, data and tasks in tests of the laws."""

from __future__ import annotations

from typing import Any

import numpy as np

import tapeline as tl
from engine.models.registry import NETWORKS
from engine.tasks.classification import Classification
from engine.tasks.language_model import LanguageModel
from engine.tasks.task import Task

BUILT_IN = NETWORKS.built_in
FAMILIES: dict[str, dict[str, Any]] = {
    # Batch norm over 4 rows, as with 8 in 2 micro-batches, has rounding errors of 0.28 of an update
    # in bfloat16: too large to compare, see engine/verify/rounding_errors.py.
    "resnet": {
        "model": "resnet",
        "model.depth": 20,
        "train_split": "train[:43]",
        "global_batch_size": 16,
    },
    "vit": {"model": "vit", "model.patch": 4, "model.dropout": 0.1},
    "transformer": {
        "model": "transformer",
        "model.layers": 2,
        "model.heads": 2,
        "model.width": 8,
        "model.dropout": 0.1,
        "dataset": "law_ids",
        "validation_split": "0",
    },
}


def law_ids() -> Any:
    """Returns sequences of 7 ids, each the sum of the two before modulo 11, and those after.

    A test has to register this function as the source "law_ids".
    """
    ids = np.random.default_rng(0).integers(0, 11, (40, 8)).astype(np.uint8)
    for place in range(2, 8):
        ids[:, place] = (ids[:, place - 1] + ids[:, place - 2]) % 11
    return tl.arrays(inputs=ids[:, :-1], targets=ids[:, 1:])


def task_of(name: str) -> Task:
    """Returns a new task for the built-in network of this name."""
    return LanguageModel({}, classes=11) if name == "transformer" else Classification()


def short_training(name: str) -> dict[str, Any]:
    """Returns options, by name, of the network of this name and of a training in small batches.

    An epoch of digits is 3 steps, of which the last has 5 or 11 examples; one of `law_ids` is 5.
    """
    split = {} if name == "transformer" else {"train_split": "train[:21]"}
    return {**split, "global_batch_size": 8, **FAMILIES.get(name, {"model": name})}
