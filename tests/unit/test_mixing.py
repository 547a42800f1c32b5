"""CutMix, alone and with mixup: boxes, labels and the choice between the two."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pipelines import parse_augmentation
from pipelines.augmentation import lookup, mixing

CLASSES = 6


def drawn(rows, columns, seed=0):
    return np.random.default_rng(seed).random((rows, columns), np.float32)


def masks(alpha, numbers, height, width):
    """Returns whether each pixel is in the box, bool [rows, height, width, 1], and the shares."""
    edges, kept = mixing.box(alpha, numbers, height, width)
    top, bottom, left, right = (edge.numpy()[:, :, np.newaxis] for edge in edges)
    y, x = np.mgrid[:height, :width]
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return inside[..., np.newaxis], kept.numpy()


def boxes(alpha, numbers, height, width):
    """Returns (top, bottom, left, right) of each box, float64, by SciPy's Beta distribution."""
    share = stats.beta.ppf(numbers[:, 0].astype(np.float64), alpha, alpha)
    sides = []
    for size, number in ((height, numbers[:, 1]), (width, numbers[:, 2])):
        half = np.floor(np.sqrt(1 - share) * size / 2 + 1e-9)
        centre = np.floor(number * np.float32(size))
        sides += [np.maximum(centre - half, 0), np.minimum(centre + half, size)]
    return np.stack(sides, 1)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_box_matches_scipy(alpha):
    """The box is that of Yun et al.; few differ, where a side is nearly a whole number."""
    height, width = 32, 24
    numbers = drawn(400, 3)
    inside, kept = masks(alpha, numbers, height, width)
    expected = boxes(alpha, numbers, height, width)
    y, x = np.mgrid[:height, :width]
    same = 0
    for mask, weight, (top, bottom, left, right) in zip(inside, kept, expected, strict=True):
        assert weight == pytest.approx(1 - mask.mean(), abs=1e-6)
        box = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        same += np.array_equal(mask[..., 0], box)
    assert same >= 0.97 * len(numbers)


def test_cutmix_pastes_the_next_example():
    augment = parse_augmentation("cutmix", (16, 16, 3))
    assert augment.mixes and augment.numbers == 3
    images = np.random.default_rng(1).integers(0, 256, (41, 16, 16, 3)).astype(np.uint8)
    labels = np.random.default_rng(2).integers(0, CLASSES, 41).astype(np.int32)
    numbers = drawn(41, 3)
    result, targets = (part.numpy() for part in augment(images, labels, numbers, CLASSES))
    inside, kept = masks(1.0, numbers[:-1], 16, 16)
    pixels = images.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result, np.where(inside, pixels[1:], pixels[:-1]))
    one_hot = np.eye(CLASSES)[labels]
    np.testing.assert_allclose(targets, kept * one_hot[:-1] + (1 - kept) * one_hot[1:], atol=1e-6)
    assert 0.05 < inside.mean() < 0.5


def test_each_row_is_mixed_by_one_of_the_two():
    """With both, each row is as by one of them alone; each is chosen about half of the time."""
    images = np.random.default_rng(1).integers(0, 256, (201, 8, 8, 1)).astype(np.uint8)
    labels = np.random.default_rng(2).integers(0, CLASSES, 201).astype(np.int32)
    numbers = drawn(201, 5)

    def applied(spec, numbers):
        augment = parse_augmentation(spec, (8, 8, 1))
        return [part.numpy() for part in augment(images, labels, numbers, CLASSES)]

    both = applied("cutmix:0.7,mixup:0.4", numbers)
    mixed = applied("mixup:0.4", numbers[:, :1])
    cut = applied("cutmix:0.7", numbers[:, 1:4])
    chosen = numbers[:-1, 4] >= 0.5
    assert 70 < chosen.sum() < 130
    for row, by_cutmix in enumerate(chosen):
        for found, one in zip(both, cut if by_cutmix else mixed, strict=True):
            np.testing.assert_allclose(found[row], one[row], atol=1e-7)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_side_quantiles(alpha):
    table = lookup.cutmix_side_quantiles(alpha)
    assert table.shape == (lookup.CELLS + 1,) and (np.diff(table) <= 0).all()
    expected = np.sqrt(1 - stats.beta.ppf(lookup.uniform_grid(), alpha, alpha))
    np.testing.assert_allclose(table, expected, atol=2e-3)


def test_mixing_depends_on_two_rows():
    augment = parse_augmentation("cutmix,mixup", (8, 8, 1))
    images = np.random.default_rng(1).integers(0, 256, (9, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(9, dtype=np.int32) % CLASSES
    numbers = drawn(9, 5)
    whole = augment(images, labels, numbers, CLASSES)
    for row in range(8):
        part = augment(*(a[row : row + 2] for a in (images, labels, numbers)), CLASSES)
        for some, every in zip(part, whole, strict=True):
            np.testing.assert_array_equal(some[0], every[row])
    assert whole[1].dtype == tf.float32 and np.allclose(tf.reduce_sum(whole[1], 1), 1)
