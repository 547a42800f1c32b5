"""Tests that a transformer and a residual network train the same on one and on several devices."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.tasks.task import Task, TaskOutput
from engine.verify.bounds import FLOAT32_RUN, bound
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tapeline.models import Dense, Dropout, LayerNorm, Residual
from tests.choices import seldom
from tests.harness import Training, pictures, put_together, relative_difference, same_bits, training

VOCABULARY, TOKENS, UNITS = 11, 6, 8


class Composed(tf.Module):
    """A model that applies a list of layers in order, and accepts inputs of any shape and dtype."""

    def __init__(self, layers, input_shape, seed):
        super().__init__("composed")
        self.layers = layers
        for index, layer in enumerate(layers):
            input_shape = layer.build(input_shape, models.Initializer(seed, index, layer.kind))

    def __call__(self, x, context):
        for layer in self.layers:
            x = layer(x, context)
        return tf.cast(x, tf.float32)


class Gathered(models.Embedding):
    """An embedding as a user writes it, whose gradient is a `tf.IndexedSlices`."""

    def __call__(self, ids, context):
        return tf.cast(tf.gather(self.table, ids), context.dtype)


def transformer(embedding=models.Embedding):
    """Returns the layers of a causal pre-norm transformer.

    The layers map token ids [rows, tokens] to logits of the next ids [rows, tokens, VOCABULARY].
    `embedding` is the class of the first layer.
    """
    return [
        *(embedding(VOCABULARY, UNITS), models.PositionEmbedding(), Dropout(0.1)),
        Residual(LayerNorm(), models.Attention(2, causal=True, dropout=0.25), Dropout(0.1)),
        Residual(LayerNorm(), Dense(4 * UNITS, "gelu"), Dense(UNITS), Dropout(0.1)),
        *(LayerNorm(), Dense(VOCABULARY)),
    ]


class NextId(Task):
    """Task of next-token prediction; the loss of a sequence is the mean cross-entropy."""

    def __init__(self):
        self.metrics = {}

    def __call__(self, model, batch, context):
        ids = tf.cast(batch.inputs, tf.int32)
        logits = model(ids[:, :-1], context)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids[:, 1:], logits)
        return TaskOutput(tf.reduce_mean(losses, 1))


def sequences(examples=28):
    """Returns random sequences, uint8 [examples, TOKENS + 1].

    The first two ids are random; each other id is the sum of the two before, modulo VOCABULARY.
    """
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (examples, TOKENS + 1)).astype(np.uint8)
    for place in range(2, TOKENS + 1):
        ids[:, place] = (ids[:, place - 1] + ids[:, place - 2]) % VOCABULARY
    return ids


def trained(
    replicas=1, steps=4, accumulate=1, shards=0, embedding=models.Embedding, **options
) -> Training:
    """Trains the transformer on 28 examples in batches of 8 and returns the training.

    The last batch of an epoch has 4 padding rows. The initial weights are stored in the attribute
    `before` of the training. `options` are passed to `put_together`.
    """
    ids, layout = sequences(), BatchLayout(replicas, accumulate, shards)
    plan = BatchPlan(examples=len(ids), global_batch_size=8, layout=layout, seed=0)
    labels = np.zeros(len(ids), np.int32)
    options = {"optimizer": "momentum", "learning_rate": 0.01} | options
    run = put_together(
        lambda: Composed(transformer(embedding), (TOKENS,), seed=0),
        lambda strategy: InMemoryFeed(ids, labels, plan, strategy),
        NextId(),
        layout=layout,
        **options,
    )
    run.before = run.weights()
    return run.take(steps)


def moved(run) -> list[np.ndarray]:
    return [after - before for after, before in zip(run.weights(), run.before, strict=True)]


def test_transformer_learns():
    run = trained(steps=0, optimizer="adam", learning_rate=0.01)
    ids = tf.constant(sequences())
    first = _loss(run, ids)
    run.take(150)
    assert first > 0.9 * np.log(VOCABULARY)
    assert _loss(run, ids) < 0.8 * first


def _loss(run, ids):
    ids = tf.cast(ids, tf.int32)
    logits = run.state.model(ids[:, :-1], models.ForwardContext())
    return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(ids[:, 1:], logits)))


@pytest.mark.parametrize("other", [{"replicas": 2}, {"accumulate": 2}, seldom({"jit": "loop"})])
def test_transformer_on_other_topologies(other):
    """Two replicas, two micro-batches or XLA change the trained weights only by rounding."""
    one, two = trained(), trained(**other)
    moves, length = moved(one), [np.linalg.norm(each) for each in one.weights()]
    for move, ours, theirs, norm in zip(moves, one.weights(), two.weights(), length, strict=True):
        assert np.linalg.norm(move) > 0
        assert np.linalg.norm(ours - theirs) <= FLOAT32_RUN * max(np.linalg.norm(move), norm)


def test_transformer_in_bfloat16():
    one, two = (trained(replicas, precision="mixed_bfloat16") for replicas in (1, 2))
    exact = trained()
    # All weights as one vector: the gradient of one bias is a sum in bfloat16, of larger error.
    ours, theirs, expected = (
        np.concatenate([move.ravel() for move in moved(run)]) for run in (one, two, exact)
    )
    path = float(np.linalg.norm(expected))
    allowed = bound("mixed_bfloat16", path, path) * path
    assert np.linalg.norm(ours - expected) <= allowed
    assert np.linalg.norm(theirs - expected) <= allowed


@pytest.mark.parametrize("embedding", [models.Embedding, Gathered])
def test_transformer_of_shards(embedding):
    """With two shards, the trained weights are bitwise equal on one and on two replicas."""
    one, two = (trained(replicas, shards=2, embedding=embedding).weights() for replicas in (1, 2))
    assert same_bits(one, two)


def test_sparse_gradient_is_dense_gradient():
    assert same_bits(trained().weights(), trained(embedding=Gathered).weights())


# A residual network


def residual_network(classes=3):
    """Returns the layers of a pre-activation residual network with SiLU activations.

    The network has no ReLU or max pool, in which rounding can switch a unit. Convolutions have no
    bias, because batch norm cancels one.
    """

    def convolution(filters, size=3, stride=1):
        return models.Convolution(filters, size, stride, "SAME", use_bias=False)

    def block(filters, stride=1):
        return Residual(
            *(models.BatchNorm(), models.Activation("silu"), convolution(filters, stride=stride)),
            *(models.BatchNorm(), models.Activation("silu"), Dropout(0.25), convolution(filters)),
            shortcut=[models.AveragePool(stride, padding="SAME"), convolution(filters, 1)],
        )

    return [
        *(convolution(4), block(4), block(6, stride=2)),
        *(models.BatchNorm(), models.GlobalAveragePool(), Dense(classes)),
    ]


def residual_run(replicas, **options):
    images, labels = pictures(28)
    options |= {"optimizer": "momentum", "learning_rate": 0.01, "network": residual_network}
    return training(images, labels, replicas=replicas, **options).take(4)


def test_residual_network_on_two_devices():
    one, two = residual_run(1), residual_run(2)
    assert relative_difference(one.weights(), two.weights()) <= FLOAT32_RUN
    one, two = (residual_run(replicas, shards=2).weights() for replicas in (1, 2))
    assert same_bits(one, two)
