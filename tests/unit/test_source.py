"""Splits of TFDS data sets: ranges of records, decoding, recipes and errors."""

import json
import math
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.resize import Resize
from pipelines.sources.tfds import open_source
from pipelines.storage.decode import constants, decode_batch, decode_split, traced
from pipelines.storage.example_access import read_examples, read_stored_images
from pipelines.storage.records import RecordReader, RecordSplit

REPOSITORY = Path(__file__).resolve().parents[2]


class Sample(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS data set whose pixels are the example's index; subclasses change features or keys."""

    VERSION = tfds.core.Version("1.0.0")
    NAMES = ("cat", "dog", "eel")
    FEATURES = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(4, 6, 1)),
        "label": tfds.features.ClassLabel(names=NAMES),
    }
    KEYS = ("image", "label")
    TRAIN, TEST = 50, 10
    TEST_LABEL = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.FEATURES),
            supervised_keys=self.KEYS,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

    def _generate_examples(self, test):
        for index in range(self.TEST if test else self.TRAIN):
            label = self.TEST_LABEL if test and self.TEST_LABEL is not None else index % 3
            yield index, self.example(index, label)

    def example(self, index, label):
        return {"image": np.full((4, 6, 1), index, np.uint8), "label": label}


class Coloured(Sample, skip_registration=True):
    """TFDS data set with other features besides image and label, one of them a second image."""

    FEATURES = {  # noqa: RUF012
        "id": tfds.features.Text(),
        "mask": tfds.features.Image(shape=(4, 6, 1)),
        "photo": tfds.features.Image(shape=(None, None, 3)),
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        "kind": tfds.features.ClassLabel(num_classes=3),
    }
    KEYS = ("photo", "kind")
    TRAIN, TEST = 6, 3

    def example(self, index, label):
        photo = np.full((4 + index, 6, 3), index, np.uint8)
        mask = np.zeros((4, 6, 1), np.uint8)
        return {"id": str(index), "mask": mask, "photo": photo, "boxes": [], "kind": label}


class Undecided(Coloured, skip_registration=True):
    KEYS = None


class SecretTest(Sample, skip_registration=True):
    TEST_LABEL = -1


class Unlabelled(Sample, skip_registration=True):
    FEATURES = {"image": tfds.features.Image(shape=(4, 6, 1))}  # noqa: RUF012
    KEYS = None

    def example(self, index, label):
        return {"image": np.zeros((4, 6, 1), np.uint8)}


class Imageless(Sample, skip_registration=True):
    FEATURES = {"x": np.float32, "label": tfds.features.ClassLabel(num_classes=3)}  # noqa: RUF012
    KEYS = ("x", "label")

    def example(self, index, label):
        return {"x": 1.0, "label": label}


class Deep(Sample, skip_registration=True):
    FEATURES = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(4, 6, 1), dtype=np.uint16, encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def example(self, index, label):
        return {"image": np.zeros((4, 6, 1), np.uint16), "label": label}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Prepares all data sets of this module; returns their data_dir.

    The train split of `sample` is in three files.
    """
    root = tmp_path_factory.mktemp("shelf")
    tfds.disable_progress_bar()
    for kind in (Sample, Coloured, Undecided, SecretTest, Unlabelled, Imageless, Deep):
        config = tfds.download.DownloadConfig(num_shards=3 if kind is Sample else 1)
        kind(data_dir=str(root)).download_and_prepare(download_config=config)
    return root


@pytest.fixture
def opened(shelf):
    def open_it(dataset="sample", **arguments):
        arguments.setdefault("data_dir", str(shelf))
        return open_source(dataset, cache_dir="unused", **arguments)

    return open_it


@pytest.fixture
def copied(shelf, tmp_path):
    """Copies the data set `sample`, to be damaged; returns its data_dir and version directory."""
    place = tmp_path / "sample" / "1.0.0"
    shutil.copytree(shelf / "sample" / "1.0.0", place)
    return tmp_path, place


def read(source, records):
    """Returns (first pixel, label) of each example of a split, decoded in order."""
    images, labels = decode_split(source, records)
    return list(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))


def whole_examples(records):
    """Returns the serialized examples of a split, object [n] of bytes."""
    return RecordReader(records.ranges).read(np.arange(len(records)))


def said(call, **arguments):
    with pytest.raises(ValueError) as error:
        call(**arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# Splits


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_part_is_slice(lengths, data):
    starts = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    ranges = [(f"f{i}", s, s + n) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))]
    whole = RecordSplit("train", tuple(ranges))

    def listed(records):
        return [(path, i) for path, first, last in records.ranges for i in range(first, last)]

    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    part = whole.part(start, stop, "part")
    assert listed(part) == listed(whole)[start:stop]
    assert len(part) == stop - start
    assert part.in_common(whole) == whole.in_common(part) == stop - start
    assert not part.in_common(whole.part(stop, len(whole), "rest"))
    assert part.repeated() == 0


def test_validation_split_over_files(opened):
    """A split over several files is read in order and divided at the same index as in Keras."""
    source = opened(validation_split="0.3")
    assert len(source.train.ranges) == 3
    everything = [(i, i % 3) for i in range(50)]
    assert read(source, source.train) == everything[:35]
    assert read(source, source.validation) == everything[35:]
    assert read(source, source.test) == everything[:10]
    assert (source.train.name, source.validation.name) == ("train[:35]", "train[35:]")


def test_sub_split(opened):
    source = opened(train_split="train[20%:50%]", validation_split="0.2")
    assert [i for i, _ in read(source, source.train)] == list(range(10, 22))
    assert [i for i, _ in read(source, source.validation)] == list(range(22, 25))


def test_splits_add_up(opened):
    source = opened(train_split="train[:5]+test[8:]", validation_split="", test_split="")
    assert [i for i, _ in read(source, source.train)] == [0, 1, 2, 3, 4, 8, 9]
    assert source.test is None and source.validation is None


@pytest.mark.parametrize("fraction", ["0.1", "0.2", "0.3", "0.7", "1e-1", " 0.29 "])
def test_cut_matches_keras(opened, fraction):
    source = opened(validation_split=fraction)
    assert len(source.train) == math.floor(50 * (1.0 - float(fraction)))
    assert len(source.train) + len(source.validation) == 50


@pytest.mark.parametrize("none", ["", "0", "0.0"])
def test_no_validation_split(opened, none):
    source = opened(validation_split=none)
    assert source.validation is None and len(source.train) == 50


def test_tfds_validation_split(opened):
    source = opened(train_split="train[:80%]", validation_split="train[80%:]")
    assert [i for i, _ in read(source, source.validation)] == list(range(40, 50))
    assert len(opened(validation_split="test", test_split="").validation) == 10
    assert "--test_split=auto: shares examples" in said(opened, validation_split="test")
    message = said(opened, validation_split="train[80%:]")
    assert "shares examples" in message and "--train_split='train[:90%]'" in message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_cut_matches_keras(opened, real_data, name):
    for fraction, sizes in (
        ("0.1", (54000, 6000)),
        ("0.2", (48000, 12000)),
        ("0.3", (42000, 18000)),
    ):
        source = opened(name, data_dir=real_data, validation_split=fraction)
        assert (len(source.train), len(source.validation), len(source.test)) == (*sizes, 10000)
    half = opened(name, data_dir=real_data, train_split="train[:50%]", validation_split="0.1")
    assert (len(half.train), len(half.validation)) == (27000, 3000)
    assert (source.image_shape, source.classes, source.version) == ((28, 28, 1), 10, "3.0.1")


def test_mnist_decoding_matches_tfds(opened, real_data):
    source = opened("mnist", data_dir=real_data)
    mine = read_examples(source, source.test, np.arange(50))
    builder = tfds.builder_from_directory(os.path.join(real_data, "mnist", "3.0.1"))
    theirs = builder.as_dataset(split="test[:50]", as_supervised=True)
    for own, own_label, (image, label) in zip(mine.inputs, mine.targets, theirs, strict=True):
        assert np.array_equal(own, image) and own_label == int(label)


# Decoding


def test_decode_types_and_shapes(opened):
    source = opened()
    image, label = source.decode.get_concrete_function().structured_outputs
    assert (image.shape, image.dtype) == ((4, 6, 1), tf.uint8) == (source.image_shape, tf.uint8)
    assert (label.shape, label.dtype) == ((), tf.int32)
    assert source.decoded == (tf.TensorSpec((4, 6, 1), tf.uint8), tf.TensorSpec((), tf.int32))
    assert source.inputs == tf.TensorSpec((4, 6, 1), tf.float32)  # divided by 255
    assert source.targets == tf.TensorSpec((), tf.int32)
    assert source.class_names == ("cat", "dog", "eel") and source.classes == 3


def test_varying_sizes_need_image_size(opened):
    assert "vary in size: give --image_size=64,64" in said(opened, dataset="coloured")
    source = opened("coloured", image_size=(5, 7), validation_split="")
    assert source.image_shape == (5, 7, 3)
    # Supervised keys decide between the two images; the other features are not read.
    assert read(source, source.train) == [(i, i % 3) for i in range(6)]


def test_stored_images_keep_size(opened, tmp_path):
    source = opened("coloured", image_size=(5, 7), validation_split="")
    numbers = np.array([3, 0, 5])
    stored = list(read_stored_images(source, source.train, numbers, str(tmp_path)))
    assert source.stored_size is None
    assert [image.shape for image in stored] == [(4 + number, 6, 3) for number in numbers]
    resized = read_examples(source, source.train, numbers).inputs
    assert np.array_equal(resized, np.stack([source.resize.array(image) for image in stored]))


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("antialias", [True, False])
def test_resizing_matches_resize(opened, fit, antialias):
    source, small = opened(), opened(image_size=(2, 5), fit=fit, antialias=antialias)
    assert (small.stored_size, small.image_shape) == ((4, 6), (2, 5, 1))
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 1), np.uint8)
    record = tf.io.encode_png(image), tf.constant(2)
    assert np.array_equal(source.decode(record)[0], image)
    resized, label = small.decode(record)
    expected = Resize((2, 5), fit, antialias).array(image)
    assert np.array_equal(small.decode_stored(record)[0], image)
    assert np.array_equal(resized, expected) and int(label) == 2


@pytest.mark.parametrize(
    "options", [{}, {"image_size": (2, 3)}, {"dataset": "coloured", "image_size": (5, 7)}], ids=str
)
@pytest.mark.parametrize("at_once", [2, 64])
def test_decode_fields(opened, options, at_once):
    """Images and labels decoded from the record index's fields equal those of TFDS."""
    source = opened(validation_split="", **options)
    numbers = np.array([3, 1, 5, 2, 0])
    reader = source.train.reader()
    assert np.array_equal(reader.targets()[numbers], numbers % 3)
    images, labels = decode_batch(source, constants(reader.read(numbers)), at_once)
    kind = Coloured if "dataset" in options else Sample
    features = tfds.features.FeaturesDict(kind.FEATURES)
    for i, serialized in enumerate(whole_examples(source.train)[numbers]):
        example = features.deserialize_example(tf.constant(serialized))
        stored = example[kind.KEYS[0]].numpy()
        assert np.array_equal(images[i], source.resize.array(stored))
        assert int(labels[i]) == int(example[kind.KEYS[1]])


def inlined(graph: tf.compat.v1.GraphDef) -> int:
    """Returns the number of operations of a graph with every call of a function inlined."""
    functions = {each.signature.name: each.node_def for each in graph.library.function}

    def size(nodes) -> int:
        called = [each.func.name for node in nodes for each in node.attr.values()]
        return len(nodes) + sum(size(functions[name]) for name in called if name)

    return size(graph.node)


def test_resizing_graph_is_small(opened):
    """Resizing adds few operations to the decoding graph, not one for each of 128 images."""
    sizes = []
    for options in ({}, {"image_size": (2, 3)}):
        source = opened(validation_split="", **options)
        graph = tf.function(lambda *some, source=source: decode_batch(source, some))
        signature = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int32)
        made = graph.get_concrete_function(*signature)
        sizes.append(inlined(made.graph.as_graph_def()))
    assert sizes[1] < sizes[0] + 1000, sizes


def test_recipe(opened):
    """The recipe differs if and only if decoded examples do."""
    assert opened().recipe == opened(train_split="test", validation_split="", test_split="").recipe
    assert opened(image_size=(4, 6)).recipe == opened().recipe
    recipes = {opened(image_size=size).recipe for size in (None, (2, 3), (3, 2))}
    recipes |= {
        opened(image_size=(2, 3), fit=fit, antialias=antialias).recipe
        for fit in ("pad", "crop", "stretch")
        for antialias in (True, False)
    }
    assert len(recipes) == 3 + 5


def test_recipes_of_0_4_0(opened):
    """The recipes are those of version 0.4.0, on which its digests and cache keys depend."""
    stored = "image=image:Image(4, 6, 1):uint8;label=label;out=4x6x1:as stored;decode=1"
    assert opened().recipe == stored
    old = opened(image_size=(2, 3), fit="stretch", antialias=False).recipe
    assert old == stored.replace("4x6x1:as stored", "2x3x1:bilinear")


def test_decoding_traces_once(opened, tmp_path):
    source = opened(validation_split="")
    numbers = np.arange(10)
    for _ in range(3):
        decode_split(source, source.train)
        read_examples(source, source.train, numbers)
        read_examples(source, source.train, numbers, str(tmp_path))
        read_examples(source, source.train, np.resize(numbers, 200), str(tmp_path))
        read_examples(source, source.train, np.resize(numbers, 300), str(tmp_path))
    assert source.decode.experimental_get_tracing_count() == 1
    batches = traced(source, source.train.reader().spec)
    assert batches.experimental_get_tracing_count() == 1


def test_opens_version_directory(opened, shelf):
    source = opened(str(shelf / "sample" / "1.0.0"), data_dir=None)
    assert (source.name, source.version, len(source.train)) == ("sample", "1.0.0", 45)


def test_unlabelled_test_split(opened):
    assert opened("secret_test").test is None
    assert "have no labels" in said(opened, dataset="secret_test", test_split="test")


def test_runtime_not_started():
    """Opening a data set does not start TensorFlow, so the CPU can still be split into devices."""
    import subprocess
    import sys

    code = (
        "import tempfile, tensorflow as tf; from pipelines.sources.tfds import open_source\n"
        "open_source('digits', data_dir=None, cache_dir=tempfile.mkdtemp())\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "assert len(tf.config.list_logical_devices('CPU')) == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=120)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"dataset": "unlabelled"}, "has no labels: none of its features is a ClassLabel"),
        ({"dataset": "undecided"}, "several images (mask, photo)"),
        ({"dataset": "deep"}, "are uint16; only uint8"),
        ({"image_size": (0, 6)}, "--image_size=64,64"),
        ({"validation_split": "1.5"}, "--validation_split=1.5: give a fraction between 0 and 1"),
        ({"validation_split": "1"}, "a fraction between 0 and 1"),
        ({"validation_split": "-0.1"}, "a fraction between 0 and 1"),
        ({"validation_split": "nan"}, "a fraction between 0 and 1"),
        ({"validation_split": "0.99"}, "leaves none for train"),
        ({"validation_split": "1e-30"}, "leaves none for validation"),
        ({"validation_split": "valid"}, "has no split 'valid': it has train, test, or a fraction"),
        ({"train_split": "trian"}, "--train_split=trian: sample has no split 'trian'"),
        ({"train_split": "train[half]"}, "cannot be read as a split; write 'train'"),
        ({"train_split": "train[90:]"}, "cannot be read as a split (Requested slice"),
        ({"train_split": "train[:0]"}, "--train_split=train[:0]: holds no examples of sample"),
        ({"test_split": "test+exam"}, "has no split 'exam'"),
        ({"dataset": "sampel"}, "did you mean sample"),
    ],
)
def test_refuses_unusable_input(opened, arguments, expected):
    assert expected in said(opened, **arguments)


def test_names_missing_file(opened, copied):
    root, place = copied
    shard = place / "sample-train.tfrecord-00001-of-00003"
    shard.unlink()
    assert f"{shard} is missing" in said(opened, data_dir=str(root))
    # Only the files of requested splits are required.
    only = {"train_split": "test", "validation_split": "", "test_split": ""}
    assert len(opened(data_dir=str(root), **only).train) == 10


def test_refuses_truncated_file(opened, copied):
    root, place = copied
    shard = place / "sample-test.tfrecord-00000-of-00003"
    shard.write_bytes(shard.read_bytes()[:20])
    message = said(opened, data_dir=str(root))
    assert "is damaged" in message and str(place) in message


@pytest.mark.parametrize("content", [bytes(1 << 16), struct.pack("<QI", 1 << 60, 0) * 4096])
def test_refuses_foreign_file(opened, copied, content):
    root, place = copied
    shard = place / "sample-test.tfrecord-00000-of-00003"
    shard.write_bytes(content)
    assert f"cannot read the first example of {shard}" in said(opened, data_dir=str(root))


def test_refuses_other_format(opened, copied):
    root, place = copied
    info = json.loads((place / "dataset_info.json").read_text())
    info["fileFormat"] = "array_record"
    (place / "dataset_info.json").write_text(json.dumps(info))
    assert "stored as array_record" in said(opened, data_dir=str(root))
