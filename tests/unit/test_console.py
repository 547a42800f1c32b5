"""The description of a data set that a run prints."""

from __future__ import annotations

import dataclasses

import numpy as np

from engine.trainer.console import example
from tests.nested import source_of

IMAGES = np.zeros((2, 8, 8, 1), np.uint8)


def test_classification_of_images():
    source = source_of(IMAGES, np.zeros(2, np.int32))
    source = dataclasses.replace(source, class_names=("a", "b", "c"))
    assert example(source) == "3 classes, images 8x8x1"


def test_other_inputs_and_targets():
    tokens = {"ids": np.zeros((2, 64), np.int32), "mask": np.zeros((2, 64), np.float32)}
    assert example(source_of(tokens, np.zeros(2, np.float32))) == (
        "inputs ids 64 int32, mask 64 float32, targets scalar float32"
    )
    masks = source_of(IMAGES, np.zeros((2, 8, 8), np.int32))
    assert example(masks) == "images 8x8x1, targets 8x8 int32"
    masks = dataclasses.replace(masks, class_names=("a", "b", "c"))
    assert example(masks) == "images 8x8x1, targets 8x8 int32 of 3 classes"
    labels = dataclasses.replace(source_of(tokens, np.zeros(2, int)), class_names=("a", "b"))
    assert example(labels) == "2 classes, inputs ids 64 int32, mask 64 float32"
