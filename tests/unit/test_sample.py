"""The sample of a user's data for verification: a few batches, with a remainder if possible."""

from __future__ import annotations

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.verify.sample import EVALUATION_BYTES, FULL_BATCHES, sample
from pipelines import DataSplit, RecordSplit, Source, steps_per_epoch


def source(train: int, validation: int = 0, test: int = 0, side: int = 8) -> Source:
    def records(name: str, count: int) -> DataSplit | None:
        return RecordSplit(name, ((name, 0, count),)) if count else None

    counts = {"train": train, "validation": validation, "test": test}
    splits = {name: records(name, count) for name, count in counts.items()}
    validation = splits.pop("validation")
    splits["validation_sets"] = {} if validation is None else {"validation": validation}
    decoded = tf.TensorSpec((side, side, 1), tf.uint8), tf.TensorSpec((), tf.int32)
    return Source(name="some", version="1.0.0", decoded=decoded, class_names=("a", "b"), **splits)


@given(train=st.integers(1, 3000), batch=st.integers(1, 1000))
def test_epoch_length(train, batch):
    """An epoch has a few full batches of the user's size and a smaller last one."""
    cut = sample(source(train), batch)
    examples = len(cut.source.train)
    assert 1 <= examples <= train and cut.batch == min(batch, train)
    assert steps_per_epoch(examples, batch) <= FULL_BATCHES + 1
    assert batch == 1 or examples <= batch or examples % batch
    if train > (FULL_BATCHES + 1) * batch:
        assert steps_per_epoch(examples, batch) == FULL_BATCHES + (batch > 1)


@pytest.mark.parametrize(
    ("held_out", "scored", "scored_from"),
    [
        ({"validation": 30, "test": 20}, "validation", "validation"),
        ({"test": 20}, "test", "test"),
        ({}, "validation", "train"),
    ],
)
def test_scored_split(held_out, scored, scored_from):
    """The sample evaluates the validation split, else the test split, else training examples."""
    cut = sample(source(100, **held_out), 10)
    assert (cut.scored, cut.scored_from) == (scored, scored_from)
    assert cut.examples_scored == cut.examples_held_out == held_out.get(scored_from, 100)
    other = {"validation": "test", "test": "validation"}[scored]
    assert getattr(cut.source, other) is None


def test_limits_scored_examples():
    cut = sample(source(10, validation=10**6, side=100), 5)
    assert cut.examples_scored == EVALUATION_BYTES // 10_000
    assert cut.examples_held_out == 10**6
