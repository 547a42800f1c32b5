"""RandAugment's operations are Pillow's, pixel for pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from pipelines import parse_augmentation
from pipelines.augmentation.randaugment import KINDS, RandAugment, operation, randaugment


def pictures(rows, height, width, channels, seed=0):
    """Returns images of several kinds: noise, few values, one value, a narrow range; uint8."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (rows, height, width, channels)).astype(np.uint8)
    found[1::4] = found[1::4] // 100 * 100
    found[2::4] = 90
    found[3::4] = found[3::4] // 3 + 60
    return found


def pillow(image, name, sign, strength):
    """Returns one image after an operation of Pillow, with torchvision's ranges of magnitudes."""
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    width, height = picture.size
    factor = 1 + sign * round(0.9 * strength * 1024) / 1024
    fill = 128 if grey else (128,) * 3

    def affine(*matrix):
        return picture.transform((width, height), Image.Transform.AFFINE, matrix, fillcolor=fill)

    def enhanced(kind):
        return kind(picture).enhance(factor)

    done = {
        "identity": lambda: picture,
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "solarize": lambda: ImageOps.solarize(picture, math.ceil(255 * (1 - strength))),
        "posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * strength)),
        "brightness": lambda: enhanced(ImageEnhance.Brightness),
        "contrast": lambda: enhanced(ImageEnhance.Contrast),
        "color": lambda: enhanced(ImageEnhance.Color),
        "sharpness": lambda: enhanced(ImageEnhance.Sharpness),
        "rotate": lambda: picture.rotate(-sign * 30 * strength, fillcolor=fill),
        "shear_x": lambda: affine(1, sign * 0.3 * strength, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, sign * 0.3 * strength, 1, 0),
        "translate_x": lambda: affine(1, 0, sign * int(150 / 331 * strength * width), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, sign * int(150 / 331 * strength * height)),
    }[name]()
    return np.asarray(done).reshape(image.shape)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_operation_matches_pillow(name, data):
    height, width = (data.draw(st.integers(3, 40)) for _ in range(2))
    channels = data.draw(st.sampled_from([1, 3]))
    magnitude = data.draw(st.one_of(st.sampled_from([9, 30]), st.floats(0.5, 30)))
    images = pictures(4, height, width, channels, data.draw(st.integers(0, 99)))
    for sign in (1, -1):
        kind = np.full(4, KINDS.index(name), np.float32)
        negative = np.full(4, sign < 0, np.float32)
        found = operation(images, kind, negative, magnitude / 30).numpy()
        assert found.dtype == np.uint8
        for image, pixels in zip(images, found, strict=True):
            expected = pillow(image, name, sign, magnitude / 30)
            far = np.abs(pixels.astype(int) - expected)
            if name in ("rotate", "shear_x", "shear_y"):  # Pillow's positions have 16 bits
                assert (far > 0).mean() < 0.03
            else:
                assert far.max() <= (name in ("autocontrast", "contrast", "color", "sharpness"))


def test_operations_in_turn():
    """The random numbers select kind and sign of each operation; the first comes first."""
    augment = parse_augmentation("randaugment:3:12", (20, 20, 3))
    assert augment.strengths == {"randaugment": RandAugment(3, 12.0)} and augment.numbers == 6
    images = pictures(30, 20, 20, 3)
    numbers = np.random.default_rng(3).random((30, 6), np.float32)
    found = randaugment(images, numbers, RandAugment(3, 12.0)).numpy()
    expected = images
    for first in (0, 2, 4):
        kind = np.floor(numbers[:, first] * 14)
        negative = (numbers[:, first + 1] >= 0.5).astype(np.float32)
        expected = np.concatenate(
            [
                operation(expected[i : i + 1], kind[i : i + 1], negative[i : i + 1], 0.4)
                for i in range(30)
            ]
        )
    np.testing.assert_array_equal(found, expected)


def test_kinds_are_uniform():
    """Each of the 14 kinds and both signs are as probable as the others."""
    numbers = np.random.default_rng(0).random((14 * 500, 2), np.float32)
    numbers[0] = np.float32(1 - 2**-24)
    counts = np.bincount((np.floor(numbers[:, 0] * 14)).astype(int), minlength=14)
    assert len(counts) == len(KINDS) == 14
    assert ((counts - 500) ** 2 / 500).sum() < 13 + 5 * np.sqrt(2 * 13)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (5, 2, 3)])
def test_tiny_images(shape):
    augment = parse_augmentation("randaugment:8:30", shape)
    images = np.random.default_rng(0).integers(0, 256, (40, *shape)).astype(np.uint8)
    numbers = np.random.default_rng(1).random((40, 16), np.float32)
    result, _ = augment(images, np.zeros(40, np.int32), numbers, 2)
    assert result.shape == images.shape and np.isfinite(result).all()


def test_refuses_large_images():
    with pytest.raises(ValueError, match="for randaugment, at most 1024 a side"):
        parse_augmentation("randaugment", (1025, 20, 3))
