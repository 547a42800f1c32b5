"""Colour jitter is that of an independent implementation, for the same random numbers."""

import colorsys
import itertools

import numpy as np
import pytest

from pipelines import parse_augmentation
from pipelines.augmentation.color import ColorJitter, color_jitter, shifted_hue

GREY = np.array([0.299, 0.587, 0.114])


def images(rows, channels=3, seed=0):
    found = np.random.default_rng(seed).integers(0, 256, (rows, 7, 5, channels)).astype(np.uint8)
    found[0] = 77
    return found


def reference(image, numbers, jitter):
    """Returns one image of three channels, changed in float64 without intermediate rounding."""
    pixels = image.astype(np.float64)
    kinds = [kind for kind in range(3) if jitter[kind]]
    orders = list(itertools.permutations(kinds))
    for kind in orders[int(numbers[4] * len(orders))]:
        low, high = max(0.0, 1 - jitter[kind]), 1 + jitter[kind]
        factor = low + numbers[kind] * (high - low)
        grey = pixels @ GREY
        other = (0.0, grey.mean(), grey[..., np.newaxis])[kind]
        pixels = np.clip(factor * pixels + (1 - factor) * other, 0, 255)
    shift = jitter.hue * (2 * numbers[3] - 1)
    for at in np.ndindex(pixels.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels[at])
        pixels[at] = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    return pixels


@pytest.mark.parametrize(
    "jitter",
    [
        ColorJitter(),
        ColorJitter(0.8, 0, 0, 0),
        ColorJitter(0, 0.8, 0, 0),
        ColorJitter(0, 0, 2.0, 0),
        ColorJitter(0, 0, 0, 0.5),
        ColorJitter(0.4, 0, 0.9, 0.2),
    ],
)
def test_jitter_matches_reference(jitter):
    given, numbers = images(24), np.random.default_rng(1).random((24, 5), np.float32)
    found = color_jitter(given, numbers, jitter).numpy()
    assert found.min() >= 0 and found.max() <= 255
    for image, pixels, each in zip(given, found, numbers, strict=True):
        np.testing.assert_allclose(pixels, reference(image, each, jitter), atol=0.6)


def test_half_numbers_change_nothing():
    given = images(6)
    found = color_jitter(given, np.full((6, 5), 0.5, np.float32), ColorJitter()).numpy()
    np.testing.assert_allclose(found, given, atol=0.05)


def test_one_channel_has_no_colour():
    """Saturation and hue change nothing of grey images, and draw no order."""
    given, numbers = images(8, 1), np.random.default_rng(1).random((8, 5), np.float32)
    same = color_jitter(given, numbers, ColorJitter(0, 0, 0.9, 0.5)).numpy()
    np.testing.assert_array_equal(same, given)
    found = color_jitter(given, numbers, ColorJitter(0.5, 0, 0.9, 0.5)).numpy()
    expected = np.clip((0.5 + numbers[:, 0])[:, None, None, None] * given, 0, 255)
    np.testing.assert_allclose(found, expected, atol=1 / 64)


def test_hue_keeps_value_and_saturation():
    given = images(10).astype(np.float32)
    shift = np.linspace(-3, 3, 10, dtype=np.float32)

    def shifted(by):
        planes = [given[..., channel].reshape(10, -1) for channel in range(3)]
        return np.stack(shifted_hue(planes, by), -1).reshape(given.shape)

    found = shifted(shift)
    np.testing.assert_allclose(found.max(-1), given.max(-1), atol=0.1)
    np.testing.assert_allclose(found.min(-1), given.min(-1), atol=0.1)
    third = shifted(np.full(10, 2, np.float32))
    np.testing.assert_allclose(third, given[..., [2, 0, 1]], atol=0.05)


def test_orders_and_factors_are_uniform():
    """Brightness first and contrast first are as frequent; factors fill their range."""
    augment = parse_augmentation("color_jitter:0.5:0.5", (2, 2, 3))
    assert augment.strengths["color_jitter"] == ColorJitter(0.5, 0.5, 0, 0)
    rows = 2000
    given = np.broadcast_to(np.array([0, 100], np.uint8)[:, None, None], (rows, 2, 1, 3))
    numbers = np.random.default_rng(0).random((rows, 5), np.float32)
    found = color_jitter(given, numbers, ColorJitter(0.5, 0.5, 0, 0)).numpy()
    factor = (found[:, 1] - found[:, 0])[:, 0, 0] / 100  # the product, if nothing is clipped
    clipped = (found == 0).any((1, 2, 3))
    expected = (0.5 + numbers[:, 0]) * (0.5 + numbers[:, 1])
    np.testing.assert_allclose(factor[~clipped], expected[~clipped], atol=1e-3)
    early = numbers[:, 4] < 0.5  # brightness first: then contrast keeps the mean
    assert 900 < early.sum() < 1100
    for first, mean in ((early, 50 * (0.5 + numbers[:, 0])), (~early, 50 * (0.5 + numbers[:, 0]))):
        rows = first & ~clipped
        np.testing.assert_allclose(found[rows].mean((1, 2, 3)), mean[rows], atol=0.2)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("name", ["color_jitter", "randaugment"])
def test_refuses_other_channels(name, channels):
    message = f"--augment={name}: {name} is of images of 1 or 3 channels, and these have {channels}"
    with pytest.raises(ValueError, match=message):
        parse_augmentation(name, (8, 8, channels))


@pytest.mark.parametrize("name", ["color_jitter", "randaugment"])
def test_refuses_floating_point_images(name):
    with pytest.raises(ValueError, match=f"{name} is of uint8 images, and these are float32"):
        parse_augmentation(name, (8, 8, 3), "float32")
