"""Preprocessing: scaling of inputs, bitwise equal to the division by 255 of earlier versions."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines import fitted
from pipelines.preprocessing import Moments, Preprocessing, Scale, preprocessing
from pipelines.sources.tfds import open_source

IMAGE = tf.TensorSpec((4, 6, 3), tf.uint8)
FLOATS, IDS = tf.TensorSpec((5,), tf.float32), tf.TensorSpec((7,), tf.int64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_unit_has_same_bits_in_any_precision(dtype):
    """Scaling in float32, then rounding, equals scaling in the compute dtype, for all pixels."""
    pixels = tf.constant(np.arange(256, dtype=np.uint8))
    before = tf.cast(pixels, dtype) / 255
    after = tf.cast(Scale("unit")(pixels), dtype)
    assert np.array_equal(before.numpy().view(np.uint8), after.numpy().view(np.uint8))


@pytest.mark.parametrize(
    ("scale", "kinds"),
    [
        ("auto", {"image": "unit"}),
        ("none", {}),
        ("unit", {"image": "unit"}),
        ("standardize", {"floats": "standardize", "image": "standardize"}),
    ],
)
def test_scale_option(scale, kinds):
    """`--scale` selects images and floats to be scaled, but never integer ids."""
    spec = {"image": IMAGE, "floats": FLOATS, "ids": IDS}
    found = preprocessing(scale, spec)
    assert {path: each.kind for path, each in found.scales.items()} == kinds
    after = found.specs(spec)
    assert after["ids"] == IDS and after["floats"] == FLOATS
    assert after["image"].dtype == (tf.float32 if "image" in kinds else tf.uint8)


def test_nested_inputs_in_graph():
    found = Preprocessing({"a/0": Scale("unit"), "b": Scale("standardize", (1.0, 2.0), (2.0, 4.0))})
    inputs = {
        "a": (tf.constant([[51, 255]], tf.uint8), tf.constant([3], tf.int64)),
        "b": tf.constant([[3.0, 6.0]]),
    }
    result = tf.function(found)(inputs)
    tf.nest.assert_same_structure(result, inputs)
    assert np.allclose(result["a"][0], [[0.2, 1.0]]) and result["a"][1].dtype == tf.int64
    assert result["b"].numpy().tolist() == [[1.0, 1.0]]
    spec = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), inputs)
    for leaf, tensor in zip(
        tf.nest.flatten(found.specs(spec)), tf.nest.flatten(result), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (tensor.shape[1:], tensor.dtype)


@given(
    st.dictionaries(
        st.text("abc/", max_size=4),
        st.one_of(
            st.sampled_from([Scale(), Scale("unit"), Scale("standardize")]),
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3).map(
                lambda numbers: Scale("standardize", tuple(numbers), tuple(numbers))
            ),
        ),
        max_size=3,
    )
)
def test_json_round_trip(scales):
    found = Preprocessing(scales)
    assert Preprocessing.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_moments_of_chunks(lengths, seed):
    """Mean and deviation do not depend on the division into chunks, even far from 0."""
    values = np.random.default_rng(seed).normal(1e4, 3, (sum(lengths), 2, 3)).astype(np.float32)
    moments = Moments()
    for chunk in np.split(values, np.cumsum(lengths)[:-1]):
        moments.add(chunk)
    scale, flat = moments.scale(), values.reshape(-1, 3).astype(np.float64)
    assert np.allclose(scale.mean, flat.mean(0), rtol=1e-12)
    assert np.allclose(scale.deviation, flat.std(0), rtol=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_moments_of_uint8_are_exact(lengths, seed):
    """Bitwise the same mean and deviation for any chunks, correctly rounded."""
    values = np.random.default_rng(seed).integers(0, 256, (sum(lengths), 3, 2), np.uint8)
    moments, whole = Moments(), Moments()
    for chunk in np.split(values, np.cumsum(lengths)[:-1]):
        moments.add(chunk)
    whole.add(values)
    assert moments.scale() == whole.scale()
    scale = whole.scale()
    for channel, (mean, deviation) in enumerate(zip(scale.mean, scale.deviation, strict=True)):
        exact = [Fraction(int(x)) for x in values[..., channel].ravel()]
        average = sum(exact) / len(exact)
        assert mean == float(average)
        variance = sum((x - average) ** 2 for x in exact) / len(exact)
        assert deviation == (float(variance) ** 0.5 or 1.0)


def test_standardize_digits(cache_dir, tmp_path):
    """Standardized training images have mean 0 and deviation 1; the statistics are cached."""
    source = open_source("digits", data_dir=None, cache_dir=cache_dir, scale="standardize")
    assert not source.preprocess.fitted and source.inputs.dtype == tf.float32
    done = fitted(source, str(tmp_path))
    assert fitted(done, str(tmp_path)) is done
    from pipelines.storage.decode import decode_split

    images, _ = decode_split(done, done.train)
    scaled = done.preprocess(tf.constant(images)).numpy()
    assert abs(scaled.mean()) < 1e-5 and abs(scaled.std() - 1) < 1e-5
    assert len(list(tmp_path.glob("*.scale"))) == 1
    assert fitted(source, str(tmp_path)).preprocess == done.preprocess


def test_constant_values_are_kept():
    moments = Moments()
    moments.add(np.full((5, 2), 7.0))
    assert moments.scale() == Scale("standardize", (7.0, 7.0), (1.0, 1.0))
