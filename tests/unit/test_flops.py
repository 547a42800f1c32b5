"""FLOPs counted in the graph, compared with those computed from layer sizes."""

from __future__ import annotations

import pytest

from engine.benchmark.flops import flops_of_step
from tests.laws.product import assembled

IMAGES, CLASSES = 128, 10
# Forward pass and gradient by the weights; gradient by the inputs, except for the images.
FIRST = 2 * IMAGES * 8 * 8 * (3 * 3 * 1 * 32) * 2
SECOND = 2 * IMAGES * 4 * 4 * (3 * 3 * 32 * 64) * 3
DENSE = 2 * IMAGES * (2 * 2 * 64) * CLASSES * 3


def counted(tmp_path, **options) -> float:
    parts = assembled(str(tmp_path), **{"train_split": "train[:512]", **options})
    return flops_of_step(parts.loop.graph(), parts.feeds.training.layout.local_micro_batches)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_convolutional_network(tmp_path, precision):
    assert counted(tmp_path, model="cnn", precision=precision) == FIRST + SECOND + DENSE


def test_dense_network(tmp_path):
    dense = 2 * IMAGES * (64 * 16 * 2 + 16 * CLASSES * 3)
    assert counted(tmp_path, model="mlp", hidden=(16,)) == dense


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 4},
        {"shards": 4},
        {"accumulate": 2, "shards": 2},
        {"replicas": 2},
        {"replicas": 2, "shards": 4, "accumulate": 2},
    ],
    ids=str,
)
def test_independent_of_batch_layout(tmp_path, options):
    assert counted(tmp_path, model="cnn", **options) == FIRST + SECOND + DENSE
