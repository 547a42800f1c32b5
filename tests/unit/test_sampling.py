"""Sampling of tokens: a pure function of logits, position and seed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.sampling import Sampler, SamplingOptions, chosen
from engine.tasks.language_model import LanguageModel
from pipelines import source_from_json

CONTEXT, TOKENS = 6, "abcde"
GREEDY = SamplingOptions(temperature=0, top_k=0, seed=0)


# The choice of a token


@given(st.integers(0, 10**9), st.floats(0.1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_top_k(seed, temperature, top_k, position):
    logits = np.random.default_rng(seed).normal(size=(4, 9)).astype(np.float32)
    options = SamplingOptions(temperature, top_k, seed)
    found = chosen(logits, position, options)
    ranks = (-logits).argsort(-1).argsort(-1)
    assert (np.take_along_axis(ranks, found[:, None], -1) < top_k).all()
    np.testing.assert_array_equal(found, chosen(logits, position, options))


def test_greedy():
    logits = np.array([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]], np.float32)
    assert chosen(logits, 0, GREEDY).tolist() == [1, 0]
    assert chosen(logits, 7, SamplingOptions(1.0, 1, 3)).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies(temperature):
    logits = np.array([[0.0, 1.0, 2.0, -np.inf]], np.float32)
    rows = np.repeat(logits, 40_000, 0)
    found = np.bincount(chosen(rows, 0, SamplingOptions(temperature, 0, 1)), minlength=4)
    expected = np.exp(logits[0] / temperature)
    np.testing.assert_allclose(found / len(rows), expected / expected.sum(), atol=0.01)


def test_numbers_differ():
    """Each seed, position and row has random numbers of its own."""
    logits = np.zeros((2000, 1000), np.float32)
    one, other = (chosen(logits, p, SamplingOptions(1.0, 0, s)) for p, s in ((0, 0), (1, 0)))
    another = chosen(logits, 0, SamplingOptions(1.0, 0, 1))
    assert (one == other).mean() < 0.01 and (one == another).mean() < 0.01
    assert len(np.unique(one)) > 800


# Continuations


class Counting(tf.Module):
    """A causal model: its logits are the sum of the ids so far, modulo 5, as a one-hot code."""

    def __call__(self, inputs, context):
        total = tf.cumsum(tf.cast(inputs, tf.int32), axis=-1) % len(TOKENS)
        return 9.0 * tf.one_hot(total, len(TOKENS))


class Seeing(tf.Module):
    """A model whose logits depend on all inputs."""

    def __call__(self, inputs, context):
        total = tf.reduce_sum(tf.cast(inputs, tf.int32), -1, keepdims=True) % len(TOKENS)
        return 9.0 * tf.one_hot(tf.repeat(total, CONTEXT, -1), len(TOKENS))


def trained_of(model, task=None):
    spec = ["uint8", [CONTEXT]]
    source = source_from_json(
        {
            "name": "text",
            "version": "1",
            "inputs": spec,
            "targets": spec,
            "class_names": list(TOKENS),
            "tokens": "characters",
            "preprocess": {},
        }
    )
    config = SimpleNamespace(task=SimpleNamespace(task="mine"))
    task = task or LanguageModel({})
    return SimpleNamespace(model=model, task=task, source=source, dtype=tf.float32, config=config)


def continued(prompt, tokens):
    """Returns what `Counting` continues a text by, from the last window of each text so far."""
    ids = [TOKENS.index(each) for each in prompt]
    for _ in range(tokens):
        ids.append(sum(ids[-CONTEXT:]) % len(TOKENS))
    return "".join(TOKENS[i] for i in ids[len(prompt) :])


@pytest.mark.parametrize("prompt", ["b", "abc", "abcdea", "abcdeabcde"])
def test_continuation(prompt):
    """Of a prompt shorter than a window, as long and longer."""
    found = Sampler(trained_of(Counting())).continuations(prompt, 2, 15, GREEDY, lambda: False)
    assert found == [continued(prompt, 15)] * 2


def test_stopping():
    calls = iter([False, False, True])
    found = Sampler(trained_of(Counting())).continuations("b", 1, 9, GREEDY, lambda: next(calls))
    assert found == [continued("b", 3)]


def test_refused():
    with pytest.raises(ValueError, match="depends on later tokens"):
        Sampler(trained_of(Seeing()))
    sampler = Sampler(trained_of(Counting()))
    with pytest.raises(ValueError, match="'x'"):
        sampler.continuations("bx", 1, 1, GREEDY, lambda: False)

    class Other(LanguageModel):
        def predict(self, outputs):
            return {"classes": tf.argmax(outputs, -1)}

    with pytest.raises(ValueError, match="the task mine predicts no logits"):
        Sampler(trained_of(Counting(), Other({})))
