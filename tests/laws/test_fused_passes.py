"""Tests of the laws where XLA fuses passes inside the graph; see `engine.models.fused_passes`."""

from __future__ import annotations

import numpy as np
import pytest

from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer
from engine.models import fused_passes
from engine.verify.bounds import bound
from engine.verify.differences import difference
from tapeline import models
from tests.harness import CLASSES, pictures, same_bits, training

STEPS = 5


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fuses the passes over small tensors, too."""
    monkeypatch.setattr(fused_passes, "LEAST", 1)


def tokens_network() -> list[models.Layer]:
    """Returns a vision transformer of one block."""
    return [
        models.Convolution(8, 4, 4),
        models.Reshape(-1, 8),
        models.ClassToken(),
        models.PositionEmbedding(),
        models.TransformerBlock(8, 2, dropout=0.1, key_bias=True),
        models.SelectToken(-1),
        models.LayerNorm(),
        models.Dense(CLASSES),
    ]


def made(**settings):
    """Returns a training of 37 images in batches of 8, the last of which has 5."""
    options = {"optimizer": "adamw", "network": tokens_network, "learning_rate": 0.001}
    return training(*pictures(37), **options, **settings)


def values(run) -> list[np.ndarray]:
    return [variable.numpy() for variable in run.state.variables]


def test_passes_are_fused():
    """The graph of a step has programs of XLA; without them, the tests here would show nothing."""
    functions = made().loop.graph().graph.as_graph_def().library.function
    compiled = [each for each in functions if each.attr["_XlaMustCompile"].b]
    assert len(compiled) > 8


def test_restore_is_bitwise(tmp_path):
    """A run restored after 2 of 4 steps ends bitwise equal to a run of single steps."""
    settings = {"replicas": 2, "precision": "mixed_bfloat16"}
    stopped = made(**settings).take(2)
    CheckpointManager(str(tmp_path), stopped.state, keep=2).save_and_wait()
    resumed = made(**settings)
    Restorer(str(tmp_path), resumed.state).newest()
    resumed.take(2)
    for _ in range(2):
        stopped.take(1)
    assert int(resumed.state.step) == 4
    assert same_bits(values(stopped), values(resumed))


@pytest.mark.parametrize("shards", [0, 2])
def test_replicas_match_one_device(shards):
    """Two replicas match one device within rounding; with shards, to the bit."""
    alone, many = (made(replicas=replicas, shards=shards) for replicas in (1, 2))
    path = alone.take_measured(STEPS)
    many.take(STEPS)
    if shards:
        assert same_bits(values(alone), values(many))
    for name, ours, theirs in zip(path, alone.weights(), many.weights(), strict=True):
        allowed = bound("float32", path[name], float(np.linalg.norm(ours)))
        assert difference(ours, theirs) <= allowed, name
