"""A split, picture files and the exported model give a network the same image.

For more examples, run `pytest -m full tests/unit/test_one_picture.py`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.assembly.options import FITS
from engine.serving.export import ServingModule
from engine.tasks.classification import Classification
from pipelines import (
    Source,
    image_format,
    image_spec,
    read_examples,
    read_picture,
    read_stored_images,
)
from pipelines.sources.tfds import open_source
from tapeline import models
from tests.choices import seldom

COUNT = 24  # images of each case
ALLOWED = 1e-6  # difference between probabilities
SIDE = st.integers(1, 64)
CASES = {
    "size": st.tuples(SIDE, SIDE),
    "fit": st.sampled_from(FITS),
    "antialias": st.booleans(),
    "first": st.integers(0, 300),
    "invert": st.sampled_from(["auto", "no"]),
}
DATASETS = ["digits", "mnist", "fashion_mnist", "cifar10"]


@functools.lru_cache(maxsize=4)
def some_of_train(source: Source, cache_dir: str) -> tuple[np.ndarray, ...]:
    """Returns the training images from which prediction measures the ink layout."""
    return tuple(read_stored_images(source, source.train, np.arange(256), cache_dir))


def check(dataset: str, data_dir: str | None, cache_dir: str, folder: Path, **case) -> None:
    """Compares images of a split with those read from PNG files and those in the exported model."""
    source = open_source(
        dataset,
        data_dir=data_dir,
        cache_dir=cache_dir,
        image_size=case["size"],
        fit=case["fit"],
        antialias=case["antialias"],
    )
    assert source.test is not None
    numbers = np.arange(case["first"], case["first"] + COUNT)
    of_split = read_examples(source, source.test, numbers, cache_dir).inputs
    stored = list(read_stored_images(source, source.test, numbers, cache_dir))
    plain = open_source(dataset, data_dir=data_dir, cache_dir=cache_dir)
    measured = image_format(source, some_of_train(plain, cache_dir))
    want = image_spec(source, measured, case["invert"])
    of_files = []
    for number, image in enumerate(stored):
        path = str(folder / f"{number}.png")
        Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(path)
        of_files.append(read_picture(path, want))
    np.testing.assert_array_equal(np.stack(of_files), of_split)

    shape, classes = source.image_shape, source.classes
    model = models.build("logistic", input_shape=shape, output_shape=(classes,), seed=0, hidden=())
    task = Classification()

    def probabilities(images: np.ndarray) -> np.ndarray:
        outputs = model(source.preprocess(tf.constant(images)))
        return task.predict(outputs)["probabilities"].numpy()

    expected, found = probabilities(of_split), probabilities(np.stack(of_files))
    assert np.abs(found - expected).max() <= ALLOWED
    any_size = source.stored_size != shape[:2]
    serving = ServingModule(model, task, source, tf.float32, any_size=any_size)
    served = serving.serve(tf.constant(np.stack(stored)))["probabilities"].numpy()
    assert np.abs(served - expected).max() <= ALLOWED


def place_of(dataset: str, request: pytest.FixtureRequest) -> str | None:
    """Returns the data_dir of a data set, None for digits; skips the test if it is not prepared."""
    if dataset == "digits":
        return None
    place = str(request.getfixturevalue("real_data"))
    if not (Path(place) / dataset).is_dir():
        pytest.skip(f"{dataset} is not prepared")
    return place


@pytest.mark.parametrize("dataset", ["digits", seldom("mnist"), "fashion_mnist", "cifar10"])
def test_same_image(dataset, request, cache_dir, tmp_path):
    place = place_of(dataset, request)

    @settings(max_examples=6, derandomize=True)
    @given(st.fixed_dictionaries(CASES))
    def property_(case):
        check(dataset, place, cache_dir, tmp_path, **case)

    property_()


@pytest.mark.full
@pytest.mark.parametrize("dataset", DATASETS)
def test_same_image_many_cases(dataset, request, cache_dir, tmp_path):
    place = place_of(dataset, request)

    @settings(max_examples=300)
    @given(st.fixed_dictionaries(CASES))
    def property_(case):
        check(dataset, place, cache_dir, tmp_path, **case)

    property_()


@pytest.mark.parametrize("size", [(8, 8), (14, 28)])
def test_stored_and_half_size(size, request, cache_dir, tmp_path):
    dataset = "digits" if size == (8, 8) else "fashion_mnist"
    place = place_of(dataset, request)
    case = {"size": size, "first": 0, "invert": "auto"}
    check(dataset, place, cache_dir, tmp_path, fit="pad", antialias=True, **case)
