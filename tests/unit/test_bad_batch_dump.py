"""Reading left_out.jsonl, the record of skipped steps."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from engine.trainer.bad_batch_dump import BadBatchRecorder
from tests.nested import source_of

RANDOM = np.random.default_rng(0)


def test_damaged_line_is_kept(tmp_path):
    """A line that cannot be parsed is kept, and so are the others."""
    recorder = object.__new__(BadBatchRecorder)
    recorder._path = str(tmp_path / "left_out.jsonl")
    assert recorder._lines() == {}
    good, other = (json.dumps({"step": step}).encode() for step in (7, 3))
    damaged = b'{"step": 5, "why": "\xff'
    (tmp_path / "left_out.jsonl").write_bytes(b"\n".join([good, damaged, other]) + b"\n")
    assert recorder._lines() == {good: 7, damaged: math.inf, other: 3}


@pytest.mark.parametrize("shape", [(), (8, 8)])
def test_targets_that_are_no_labels(shape):
    """Only scalar class labels are recorded as such; masks of classes are arrays of targets."""
    targets = RANDOM.integers(0, 3, (5, *shape)).astype(np.int32)
    images = np.zeros((5, 8, 8, 1), np.uint8)
    recorder = object.__new__(BadBatchRecorder)
    source = dataclasses.replace(source_of(images, targets), class_names=("a", "b", "c"))
    recorder._parts = SimpleNamespace(source=source)
    examples = SimpleNamespace(inputs=images, targets=targets)
    label, arrays = recorder._label(examples, 2), recorder._named(examples)
    if shape:
        assert label == {} and set(arrays) == {"inputs", "targets"}
    else:
        assert label == {"label": targets[2]} and set(arrays) == {"images", "labels"}
