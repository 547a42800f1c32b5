"""Random crops and flips are those of NumPy for the same random numbers."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import parse_augmentation
from pipelines.augmentation.moves import Crop, move


def reference(image, crop, offsets, axes, flips):
    """Returns one image padded, cropped and then mirrored by NumPy."""
    padding = ((crop.padding, crop.padding),) * 2 + ((0, 0),)
    mode = {"reflect": "reflect", "zeros": "constant"}[crop.fill]
    padded = np.pad(image, padding, mode=mode)
    top, left = (int(u * (2 * crop.padding + 1)) for u in offsets)
    height, width, _ = image.shape
    result = padded[top : top + height, left : left + width]
    return np.flip(result, [axis - 1 for axis, u in zip(axes, flips, strict=True) if u >= 0.5])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_move_matches_numpy(data):
    height, width = (data.draw(st.integers(2, 12)) for _ in range(2))
    channels, rows = data.draw(st.sampled_from([1, 2, 3, 5])), data.draw(st.integers(1, 4))
    crop = Crop(
        data.draw(st.integers(1, min(height, width) - 1)),
        data.draw(st.sampled_from(["reflect", "zeros"])),
    )
    axes = data.draw(st.sampled_from([(), (1,), (2,), (2, 1)]))
    dtype = data.draw(st.sampled_from([np.uint8, np.float32]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = rng.integers(1, 256, (rows, height, width, channels)).astype(dtype)
    numbers = rng.random((rows, 4), np.float32)
    numbers[0] = np.float32(1 - 2**-24)  # the largest of all
    offsets, flips = numbers[:, :2], numbers[:, 2 : 2 + len(axes)]
    moved = move(tf.constant(images), crop, tf.constant(offsets), axes, tf.constant(flips))
    assert moved.dtype == images.dtype
    for image, found, place, mirrored in zip(images, moved.numpy(), offsets, flips, strict=True):
        np.testing.assert_array_equal(found, reference(image, crop, place, axes, mirrored))


def test_crop_offsets_are_uniform():
    """Each of the 9 x 9 offsets is as probable as the others."""
    rows, crop = 81 * 60, Crop(4)
    numbers = np.random.default_rng(0).random((rows, 2), np.float32)
    y, x = np.mgrid[:16, :16].astype(np.float32)
    images = np.broadcast_to(np.stack([y, x], -1), (rows, 16, 16, 2))
    corner = move(tf.constant(images), crop, tf.constant(numbers), (), None).numpy()[:, 5, 5]
    assert corner.min() == 1 and corner.max() == 9
    counts = np.bincount((corner @ [9, 1] - 10).astype(int), minlength=81)
    assert len(counts) == 81
    assert ((counts - 60) ** 2 / 60).sum() < 80 + 5 * np.sqrt(2 * 80)


@pytest.mark.parametrize(
    ("spec", "side", "expected"),
    [
        ("crop", 32, Crop(4)),
        ("crop", 8, Crop(1)),
        ("crop", 224, Crop(28)),
        ("crop:2", 32, Crop(2)),
        ("crop:3:zeros", 32, Crop(3, "zeros")),
        ("crop:3:reflect", 32, Crop(3)),
    ],
)
def test_crop_strengths(spec, side, expected):
    assert parse_augmentation(spec, (side + 3, side, 3)).strengths == {"crop": expected}


def test_zeros_before_scaling():
    """Padding of zeros is black as stored: --scale=standardize makes it -mean / deviation."""
    from pipelines.preprocessing import Scale

    augment = parse_augmentation("crop:1:zeros", (4, 4, 1))
    scale = Scale("standardize", (51.0,), (17.0,))
    images = np.full((1, 4, 4, 1), 85, np.uint8)
    result, _ = augment(images, np.zeros(1, np.int32), np.zeros((1, 2), np.float32), 2, scale)
    np.testing.assert_allclose(result[0, 0], -3)
    np.testing.assert_allclose(result[0, 1:, 1:], 2)


def test_floating_point_images_are_cropped():
    augment = parse_augmentation("crop:1,flip", (4, 4, 1), "float32")
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) / 7
    numbers = np.array([[0.5, 0.5, 0.9]], np.float32)
    result, _ = augment(images, np.zeros(1, np.int32), numbers, 2)
    np.testing.assert_array_equal(result, images[:, :, ::-1])
