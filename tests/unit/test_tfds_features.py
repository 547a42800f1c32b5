"""TFDS data sets of any features: the choice of inputs and targets, and decoding."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines import SourceOptions, open_dataset, read_examples, read_targets
from pipelines.sources import preparation
from pipelines.sources.tfds import tfds as described
from pipelines.storage.decode import decode_split

F = tfds.features


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS data set of images of many sizes, masks and other features, for several keys."""

    VERSION = tfds.core.Version("1.0.0")
    KEYS = ("photo", "mask")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=F.FeaturesDict(
                {
                    "photo": F.Image(shape=(None, None, 3)),
                    "mask": F.Image(shape=(None, None, 1)),
                    "kind": F.ClassLabel(names=("town", "field")),
                    "kinds": F.Tensor(shape=(2,), dtype=np.int64),
                    "box": F.BBoxFeature(),
                    "weight": F.Scalar(np.float64),
                    "place": F.FeaturesDict({"x": np.float32, "y": np.float32}),
                    "words": F.Text(),
                    "sizes": F.Sequence(np.int32),
                }
            ),
            supervised_keys=self.KEYS,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            mask = np.zeros((6 + i, 8, 1), np.uint8)
            mask[:, 4:] = 100
            yield (
                i,
                {
                    "photo": np.full((6 + i, 8, 3), 9 * i, np.uint8),
                    "mask": mask,
                    "kind": i % 2,
                    "kinds": [i, i + 1],
                    "box": F.BBox(0.0, 0.0, 0.5, 1.0),
                    "weight": i / 4,
                    "place": {"x": i, "y": -i},
                    "words": str(i),
                    "sizes": [1] * i,
                },
            )


class Unkeyed(Scenes, skip_registration=True):
    KEYS = None


class Worded(Scenes, skip_registration=True):
    KEYS = ("photo", "words")


class Nested(Scenes, skip_registration=True):
    KEYS = (("weight", "kinds"), "kind")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    for kind in (Scenes, Unkeyed, Worded, Nested):
        preparation.prepare(kind(data_dir=str(root)))
    return root


@pytest.fixture
def opened(shelf):
    def open_it(dataset="scenes", registered=None, **options):
        options = {"validation_split": "0"} | options
        given = SourceOptions(cache_dir=str(shelf / "cache"), data_dir=str(shelf), **options)
        return open_dataset(dataset, given, registered)

    return open_it


def said(call, **options):
    with pytest.raises(ValueError) as error:
        call(**options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_supervised_keys_decide(opened, tmp_path):
    """The target is the supervised key, even if the data set has a class label, too."""
    source = opened(image_size=(6, 8))
    assert source.features == "inputs photo, targets mask" and source.class_names == ()
    assert source.targets == tf.TensorSpec((6, 8, 1), tf.uint8)
    assert source.inputs == tf.TensorSpec((6, 8, 3), tf.float32)
    images, masks = decode_split(source, source.train)
    assert [int(image[0, 0, 0]) for image in images] == [9 * i for i in range(10)]
    # Masks are resized by the nearest pixel, so no class appears that was not there.
    assert set(np.unique(masks)) == {0, 100} and masks.shape == (10, 6, 8, 1)
    assert np.array_equal(read_targets(source, source.train, str(tmp_path)), masks)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_masks_follow_images(opened, fit):
    """Images and masks are resized alike: a mask that is input and target stays equal."""
    source = opened(input_features="mask", image_size=(12, 16), fit=fit)
    images, masks = decode_split(source, source.train)
    both = (images > 90) & (masks > 90) | (images < 10) & (masks < 10)
    inside = slice(2, -2) if fit == "pad" else slice(None)
    assert both[0][:, inside].mean() > 0.8


def test_several_features(opened):
    source = opened(input_features="weight, kinds,box,place", target_features="kind")
    assert source.inputs == {
        "weight": tf.TensorSpec((), tf.float64),
        "kinds": tf.TensorSpec((2,), tf.int64),
        "box": tf.TensorSpec((4,), tf.float32),
        "place": {"x": tf.TensorSpec((), tf.float32), "y": tf.TensorSpec((), tf.float32)},
    }
    assert source.class_names == ("town", "field") and source.targets.dtype == tf.int32
    found = read_examples(source, source.train, np.array([3, 1]))
    assert found.inputs["kinds"].tolist() == [[3, 4], [1, 2]]
    assert found.inputs["place"]["y"].tolist() == [-3, -1] and found.targets.tolist() == [1, 1]
    assert source.features == "inputs weight, kinds, box, place, targets kind"


def test_one_feature_is_a_tensor(opened):
    source = opened(input_features="kinds", target_features="weight")
    assert source.inputs == tf.TensorSpec((2,), tf.int64)
    assert source.targets == tf.TensorSpec((), tf.float64) and source.classes == 0


def test_nested_supervised_keys(opened):
    source = opened("nested")
    assert set(source.inputs) == {"weight", "kinds"} and source.classes == 2


def test_registered_description(opened):
    source = opened("mine", lambda: described("scenes", inputs=["box"], targets="kind"))
    assert (source.name, source.features) == ("scenes", "inputs box, targets kind")


def test_recipes_differ(opened):
    recipes = {
        opened(input_features=one, target_features=other).recipe
        for one, other in (("box", "kind"), ("kinds", "kind"), ("box,kinds", "kind"))
    }
    recipes |= {opened(image_size=size).recipe for size in ((6, 8), (8, 6))}
    recipes.add(opened(image_size=(6, 8), fit="crop").recipe)
    assert len(recipes) == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "images of scenes vary in size: give --image_size=64,64"),
        ({"input_features": "foto"}, "--input_features=foto: scenes has no feature 'foto': it has"),
        ({"dataset": "worded"}, "the targets of worded are string; inputs and targets have to be"),
        ({"input_features": "sizes"}, "the inputs of scenes vary in shape"),
        (
            {"input_features": "box", "target_features": "kind"},
            "--image_size: none of the features",
        ),
        ({"dataset": "unkeyed", "input_features": "box"}, "--target_features: unkeyed does not sa"),
        ({"dataset": "unkeyed"}, "several images (mask, photo) and does not say which to use"),
    ],
)
def test_refuses_unusable_features(opened, options, expected):
    options = {"image_size": None if options == {} else (6, 8)} | options
    assert expected in said(opened, **options)


def test_unkeyed_with_options(opened):
    source = opened("unkeyed", input_features="box", target_features="kind")
    assert source.inputs == tf.TensorSpec((4,), tf.float32)
