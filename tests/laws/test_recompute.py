"""Tests that recomputed modules train to the same bits, and that their activations are not kept."""

from __future__ import annotations

import pytest

from engine.core.flops import flops_of_step
from engine.inspection.memory import step_bytes
from engine.models.recomputed_modules import recompute
from engine.tasks.classification import Classification
from engine.verify.bounds import FLOAT32_RUN
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tapeline.models import Dense, Dropout, LayerNorm, Residual
from tests.choices import seldom
from tests.harness import pictures, put_together, relative_difference, same_bits
from tests.laws.test_compositions import residual_network


def transformer(depth=2, units=8, dropout=0.25):
    """Returns the layers of a transformer of pixels with `depth` blocks, each of two residuals."""
    attention = [
        (LayerNorm(), models.Attention(2, causal=True, dropout=dropout), Dropout(dropout))
        for _ in range(depth)
    ]
    dense = [
        (LayerNorm(), Dense(4 * units, "gelu"), Dense(units), Dropout(dropout))
        for _ in range(depth)
    ]
    blocks = [Residual(*each) for pair in zip(attention, dense, strict=True) for each in pair]
    first = [models.Reshape(-1, 1), Dense(units), models.PositionEmbedding()]
    return [*first, *blocks, LayerNorm(), models.GlobalAveragePool(), Dense(3)]


def run(pattern, replicas=1, accumulate=1, shards=0, network=transformer, **options):
    """Returns a training of pictures in batches of 8, with modules recomputed by a pattern.

    The last batch of an epoch has 4 padding rows. `options` are passed to `put_together`.
    """
    images, labels = pictures(28)
    layout = BatchLayout(replicas, accumulate, shards)
    plan = BatchPlan(examples=28, global_batch_size=8, layout=layout, seed=0)

    def make():
        model = models.Sequential("network", network(), images.shape[1:], 0)
        recompute(model, [pattern] if pattern else [], "CPU" if options.get("jit") else "")
        return model

    return put_together(
        make,
        lambda strategy: InMemoryFeed(images, labels, plan, strategy),
        Classification(),
        layout=layout,
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate": 2, "shards": 2, "replicas": 2},
        {"precision": "mixed_bfloat16"},
        seldom({"replicas": 2}),
        seldom({"precision": "mixed_float16"}),
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_same_bits_as_without(options):
    """The weights of a transformer have the same bits as without recomputation."""
    plain, ours = (run(pattern, **options).take(4).weights() for pattern in ("", "layers/*"))
    assert same_bits(plain, ours)


@pytest.mark.parametrize("replicas", [1, seldom(2)])
def test_batch_norm(replicas):
    """Statistics count once; the graph optimizer may multiply in another order than without."""
    options = {"replicas": replicas, "network": residual_network}
    plain, ours = (run(pattern, **options).take(4).weights() for pattern in ("", "layers/*"))
    assert relative_difference(plain, ours) <= FLOAT32_RUN


def test_same_bits_on_two_devices():
    """Recomputed, and with shards, the weights have the same bits on one and on two devices."""
    one, two = (run("layers/*", replicas, shards=2).take(4) for replicas in (1, 2))
    assert same_bits(one.weights(), two.weights())


@pytest.mark.parametrize("jit", ["loop", seldom("step")])
def test_xla_rounds_differently(jit):
    """Under XLA, recomputation changes the weights by rounding alone."""
    plain, ours = (run(pattern, jit=jit).take(4).weights() for pattern in ("", "layers/*"))
    assert relative_difference(plain, ours) <= FLOAT32_RUN


def test_memory_and_operations():
    """Of 12 transformer blocks, at most half the memory is needed, for a second forward pass."""

    def graph(pattern, jit="off"):
        training = run(pattern, network=lambda: transformer(12, 16), jit=jit)
        return training.loop.graph()

    plain, ours = graph(""), graph("layers/*")
    assert step_bytes(ours) <= 0.5 * step_bytes(plain)
    assert 1.2 <= flops_of_step(ours, 1) / flops_of_step(plain, 1) <= 1.34
