"""Resizing of images: equal to an independent NumPy reference, and the same in any graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.assembly.options import FITS
from pipelines.images import resize
from pipelines.images.resize import Resize, border_colour


def weights(size: int, target: int, antialias: bool) -> np.ndarray:
    """Returns the weight of each input pixel in each output pixel, float64 [target, size]."""
    scale = size / target
    reach = max(scale, 1.0) if antialias else 1.0
    centres = np.clip((np.arange(target) + 0.5) * scale - 0.5, 0, size - 1)
    if antialias:  # a triangle, truncated at the edge of the image
        centres = (np.arange(target) + 0.5) * scale - 0.5
    tent = np.maximum(0, 1 - np.abs(np.arange(size) - centres[:, None]) / reach)
    return tent / tent.sum(1, keepdims=True)


def filtered(image: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    down, across = (
        weights(size, target, antialias)
        for size, target in zip(image.shape[:2], (height, width), strict=True)
    )
    return np.einsum("ih,jw,hwc->ijc", down, across, image.astype(np.float64))


def half_up(value: float) -> int:
    return math.floor(value + 0.5)


def reference(image: np.ndarray, height: int, width: int, fit: str, antialias: bool) -> np.ndarray:
    """Returns the resized image before rounding, computed by NumPy, float64 [height, width, C]."""
    rows, columns, channels = image.shape
    if fit == "stretch":
        return filtered(image, height, width, antialias)
    if fit == "crop":
        kept = rows, max(1, half_up(rows * width / height))
        if rows * width >= columns * height:
            kept = max(1, half_up(columns * height / width)), columns
        top, left = (rows - kept[0]) // 2, (columns - kept[1]) // 2
        centre = image[top : top + kept[0], left : left + kept[1]]
        return filtered(centre, height, width, antialias)
    size = max(1, half_up(rows * width / columns)), width
    if rows * width >= columns * height:
        size = height, max(1, half_up(columns * height / rows))
    outermost = np.ones((rows, columns), bool)
    outermost[1:-1, 1:-1] = False
    colour = np.median(image[outermost].reshape(-1, channels).astype(np.float64), axis=0)
    whole = np.empty((height, width, channels))
    whole[:] = np.rint(colour) if image.dtype == np.uint8 else colour
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    whole[top : top + size[0], left : left + size[1]] = filtered(image, *size, antialias)
    return whole


SIDE = st.integers(1, 40)


@settings(max_examples=60)
@given(
    st.tuples(SIDE, SIDE, st.sampled_from([1, 3])),
    st.tuples(SIDE, SIDE),
    st.sampled_from(FITS),
    st.booleans(),
    st.sampled_from(["uint8", "float32"]),
    st.integers(0, 2**32 - 1),
)
def test_matches_numpy(shape, target, fit, antialias, dtype, seed):
    image = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    found = Resize(target, fit, antialias)(tf.constant(image)).numpy()
    assert found.shape == (*target, shape[2]) and found.dtype == dtype
    # Positions of samples are float32, with three roundings of up to a side. A weight has the same
    # error, for two weights in each of two passes, times the contrast. A half rounds either way.
    off = 2 * 2 * 3 * max(*shape[:2], *target) * 2.0**-24 * 255
    allowed = off + 0.5 * (dtype == "uint8")
    assert np.abs(found - reference(image, *target, fit, antialias)).max() <= allowed


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(9, 4, 1), (3, 12, 3), (1, 1, 1), (30, 10, 3)])
def test_bits_independent_of_shapes(shape, fit, antialias):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    made = Resize((6, 5), fit, antialias)
    known = tf.function(lambda: made(tf.constant(image)), autograph=False)().numpy()
    several = made(tf.constant(np.stack([255 - image, image]))).numpy()
    assert np.array_equal(made.array(image), known) and np.array_equal(several[1], known)


@pytest.mark.parametrize("fit", FITS)
def test_target_size_keeps_bits(fit):
    image = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    image[0, 0], image[3, 2], image[6, 4] = np.inf, np.nan, -0.0
    made = Resize((7, 5), fit)
    signature = [tf.TensorSpec([None, None, 3], tf.float32)]
    unknown = tf.function(made.__call__, input_signature=signature, autograph=False)
    for found in (made(tf.constant(image)), unknown(image), made.array(image)):
        assert np.asarray(found).tobytes() == image.tobytes()


def test_matches_tensorflow_bilinear():
    """Stretching without antialiasing equals `tf.image.resize`, as in version 0.4.0."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    for target in ((14, 28), (14, 14), (7, 9), (40, 3)):
        expected = tf.cast(tf.round(tf.image.resize(image, target)), tf.uint8).numpy()
        assert np.array_equal(Resize(target, "stretch", False).array(image), expected)
        whole = image.astype(np.float32)
        found = Resize(target, "stretch", False)(tf.constant(whole)).numpy()
        assert np.array_equal(found, tf.image.resize(whole, target).numpy())


def test_padding_is_border_median():
    image = np.full((4, 12, 3), 9, np.uint8)
    image[0], image[-1] = (10, 200, 31), (10, 200, 34)
    image[1:-1, 1:-1] = 255
    # 28 outermost pixels: 24 in the rows, 4 at the sides; the median of 12 x 31, 12 x 34, 4 x 9.
    assert border_colour(tf.constant(image[None])).numpy().ravel().tolist() == [10, 200, 31]
    found = Resize((6, 6)).array(image)
    assert (found[0] == (10, 200, 31)).all() and (found[-1] == (10, 200, 31)).all()
    assert (found[2, 3] != (10, 200, 31)).any()


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        ([[7]], 7),
        ([[1, 2, 4, 9]], 3),  # each pixel counts once, also in one row
        ([[1], [2], [4]], 2),
        ([[0, 0], [1, 1]], 0),  # a half is rounded to even
        ([[1, 1], [2, 2]], 2),
        ([[5, 5, 5], [5, 99, 6], [6, 6, 6]], 6),
    ],
)
def test_border_colour(image, colour):
    array = np.array(image, np.uint8)[None, :, :, None]
    assert border_colour(tf.constant(array)).numpy().item() == colour


def test_fits():
    assert resize.FITS == FITS
    with pytest.raises(ValueError, match="pad, crop, stretch"):
        Resize((2, 2), "squeeze")


@pytest.mark.parametrize("fit", FITS)
def test_memory_of_thin_picture(fit):
    """An image of one long row takes less than 200 MiB to resize."""
    import resource

    image = np.zeros((1, 1 << 20, 1), np.uint8)
    image[:, 1 << 19 :] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Resize((512, 512), fit).array(image)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert found.shape == (512, 512, 1)
    assert grown < 200 << 20  # bytes; 512 rows of it are 2 GiB in float32
