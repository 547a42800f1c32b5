"""Tests of law L1: any number of micro-batches gives the update of the whole global batch."""

from __future__ import annotations

import numpy as np
import pytest

from engine.assembly.parts import Parts
from engine.verify.trajectory import take
from tapeline import models
from tests.choices import seldom
from tests.harness import CLASSES, pictures, training
from tests.laws.product import assembled

STEPS = 20
RATES = {"sgd": 0.3, "adam": 0.001}  # a step changes the weights by some thousandths
# 8 batches of 128 and one of 5, less than a micro-batch.
SPLIT = "train[:1029]"
# A sum over 128 examples has about 7 levels, and each rounds by at most 2^-24 of the sum: gradients
# of two summation orders agree to 8e-7. The updated weights agree far better, except for their own
# rounding, 2^-24. That rounding is up to 1e-6 of an update; with Adam the gradient's error is added
# once more.
CLOSE, CLOSE_IN_MOVES = 1e-6, 1e-5


def vector(run: Parts) -> np.ndarray:
    """Returns all trainable weights of a run as one float64 vector."""
    weights = run.state.model.trainable_variables
    return np.concatenate([weight.numpy().ravel() for weight in weights]).astype(np.float64)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("micro_batches", [4, 7])  # of 32; of 19, the last of 14
def test_micro_batches_match_full_batch(tmp_path_factory, replicas, optimizer, micro_batches):
    """A step on 128 examples with dropout is the same in 1 and k micro-batches, within rounding."""

    def cut_into(local_micro_batches: int) -> Parts:
        return assembled(
            str(tmp_path_factory.getbasetemp()),
            replicas=replicas,
            model="law_dropout",
            train_split=SPLIT,
            global_batch_size=128,
            accumulate=local_micro_batches,
            optimizer=optimizer,
            learning_rate=RATES[optimizer],
        )

    whole, cut = cut_into(1), cut_into(micro_batches)
    for _ in range(STEPS):
        # Start from the same state, so that differences of earlier steps do not accumulate.
        for ours, theirs in zip(whole.state.variables, cut.state.variables, strict=True):
            theirs.assign(ours)
        before = vector(whole)
        whole.loop.run(1)
        cut.loop.run(1)
        one, other = vector(whole), vector(cut)
        assert np.linalg.norm(one - other) <= CLOSE * np.linalg.norm(one)
        assert np.linalg.norm(one - other) <= CLOSE_IN_MOVES * np.linalg.norm(one - before)
        (loss, *counts), (cut_loss, *cut_counts) = (
            run.state.sums.numpy()[:4] for run in (whole, cut)
        )
        assert counts == cut_counts
        assert cut_loss == pytest.approx(loss, rel=CLOSE)
    assert int(cut.state.updates) == STEPS
    assert cut.state.sums.numpy()[2] == 2 * 1029 + 2 * 128


def norm_first() -> list[models.Layer]:
    return [models.BatchNorm(), models.Flatten(), models.Dense(CLASSES)]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(("batch", "cuts"), [(22, (6, 12, 18)), (21, (7, 14))])
def test_batch_norm_per_micro_batch(replicas, batch, cuts):
    """Batch norm uses each micro-batch's statistics; moving averages use their weighted mean."""
    images, labels = pictures(batch)
    run = training(
        images,
        labels,
        replicas=replicas,
        batch=batch,
        accumulate=len(cuts) + 1,
        network=norm_first,
        shuffle=False,
    )
    layers = run.state.model.layers
    kernel, norm = layers[-1].kernel.numpy().astype(np.float64), layers[0]
    run.take(1)

    losses, means, variances = [], [], []
    for rows in np.split(np.arange(batch), cuts):
        x = images[rows] / 255.0
        means.append(len(rows) * x.mean())
        variances.append(len(rows) * x.var())
        normed = (x - x.mean()) / np.sqrt(x.var() + norm.epsilon)
        logits = normed.reshape(len(rows), -1) @ kernel
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        chosen = exponentials[np.arange(len(rows)), labels[rows]]
        losses += list(-np.log(chosen / exponentials.sum(axis=1)))
    pull = 1 - norm.momentum
    # 1e-6: float32 sums of some hundred squares.
    assert norm.moving_mean.numpy() == pytest.approx(pull * sum(means) / batch, rel=1e-6)
    wanted = 1 + pull * (sum(variances) / batch - 1)
    assert norm.moving_variance.numpy() == pytest.approx(wanted, rel=1e-6)
    assert run.state.sums.numpy()[0] == pytest.approx(sum(losses), rel=1e-6)
    # The variance of the full batch differs, so batch norm did not use it.
    assert abs(pull * ((images / 255.0).var() - sum(variances) / batch)) > 1e-5


@models.register("law_deep_norm")
def law_deep_norm(outputs) -> list[models.Layer]:
    """Returns a network with 18 batch norms."""
    layers: list[models.Layer] = [models.Flatten()]
    for _ in range(18):
        layers += [models.Dense(4), models.BatchNorm(epsilon=1e-5)]
    return [*layers, models.Dense(outputs.shape[0])]


@pytest.mark.parametrize(("replicas", "jit"), [(1, "off"), seldom(2, "off"), seldom(1, "loop")])
def test_deep_batch_norm_of_padding(tmp_path, replicas, jit):
    """The last step of an epoch, which has a micro-batch of padding alone, updates the weights."""
    run = assembled(
        str(tmp_path),
        replicas=replicas,
        jit=jit,
        model="law_deep_norm",
        train_split="train[:21]",
        global_batch_size=16,
        accumulate=2,  # of 8 rows: the last batch of 5 leaves none for the second
    )
    take(run, 4)
    assert int(run.state.updates) == 4
