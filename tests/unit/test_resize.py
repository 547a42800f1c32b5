"""Images are resized as an independent reference in NumPy resizes them, the same in any graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import FITS
from pipelines import resize
from pipelines.resize import Resize, border_colour


def weights(size: int, target: int, antialias: bool) -> np.ndarray:
    """What each of `size` samples in a row adds to each of `target`, float64 [target, size]."""
    scale = size / target
    reach = max(scale, 1.0) if antialias else 1.0
    centres = np.clip((np.arange(target) + 0.5) * scale - 0.5, 0, size - 1)
    if antialias:  # a triangle, cut off at the edge of the image
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
    """The resized image before it is rounded, float64 [height, width, C]."""
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
def test_it_is_what_the_reference_makes(shape, target, fit, antialias, dtype, seed):
    image = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    found = Resize(target, fit, antialias)(tf.constant(image)).numpy()
    assert found.shape == (*target, shape[2]) and found.dtype == dtype
    # Places of samples are float32, three roundings of up to a side; a weight is off by as much, of
    # two weights in each of two passes, times the contrast. And a half is rounded either way.
    off = 2 * 2 * 3 * max(*shape[:2], *target) * 2.0**-24 * 255
    allowed = off + 0.5 * (dtype == "uint8")
    assert np.abs(found - reference(image, *target, fit, antialias)).max() <= allowed


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(9, 4, 1), (3, 12, 3), (1, 1, 1), (30, 10, 3)])
def test_the_bits_do_not_depend_on_what_the_graph_knows(shape, fit, antialias):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    made = Resize((6, 5), fit, antialias)
    known = tf.function(lambda: made(tf.constant(image)), autograph=False)().numpy()
    several = made(tf.constant(np.stack([255 - image, image]))).numpy()
    assert np.array_equal(made.array(image), known) and np.array_equal(several[1], known)


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_target_size_keeps_every_bit(fit):
    image = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    image[0, 0], image[3, 2], image[6, 4] = np.inf, np.nan, -0.0
    made = Resize((7, 5), fit)
    signature = [tf.TensorSpec([None, None, 3], tf.float32)]
    unknown = tf.function(made.__call__, input_signature=signature, autograph=False)
    for found in (made(tf.constant(image)), unknown(image), made.array(image)):
        assert np.asarray(found).tobytes() == image.tobytes()


def test_stretched_without_antialiasing_it_has_the_bits_of_tensorflows_bilinear_resize():
    """Runs of 0.4.0 were trained on these."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    for target in ((14, 28), (14, 14), (7, 9), (40, 3)):
        expected = tf.cast(tf.round(tf.image.resize(image, target)), tf.uint8).numpy()
        assert np.array_equal(Resize(target, "stretch", False).array(image), expected)
        whole = image.astype(np.float32)
        found = Resize(target, "stretch", False)(tf.constant(whole)).numpy()
        assert np.array_equal(found, tf.image.resize(whole, target).numpy())


def test_what_is_padded_has_the_median_colour_of_the_border():
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
        ([[1, 2, 4, 9]], 3),  # each pixel counts once, in one row too
        ([[1], [2], [4]], 2),
        ([[0, 0], [1, 1]], 0),  # a half is rounded to even
        ([[1, 1], [2, 2]], 2),
        ([[5, 5, 5], [5, 99, 6], [6, 6, 6]], 6),
    ],
)
def test_the_border_is_the_outermost_pixels(image, colour):
    array = np.array(image, np.uint8)[None, :, :, None]
    assert border_colour(tf.constant(array)).numpy().item() == colour


def test_every_fit_of_the_options_is_one_and_others_are_refused():
    assert resize.FITS == FITS
    with pytest.raises(ValueError, match="pad, crop, stretch"):
        Resize((2, 2), "squeeze")


@pytest.mark.parametrize("fit", FITS)
def test_a_long_thin_picture_takes_no_more_memory_than_it_has(fit):
    """Widened to a square, or copied into each row of the target, it would take gigabytes."""
    import resource

    image = np.zeros((1, 1 << 20, 1), np.uint8)
    image[:, 1 << 19 :] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Resize((512, 512), fit).array(image)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert found.shape == (512, 512, 1)
    assert grown < 200 << 20  # bytes; 512 rows of it are 2 GiB in float32
