"""Users' sources: arrays, CSV files, functions and tf.data pipelines, and their splits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from pipelines import (
    BatchLayout,
    SourceOptions,
    arrays,
    choose_feed,
    csv,
    data_identity,
    fitted,
    from_dataset,
    open_dataset,
    open_feed,
    random_access,
    read_examples,
    read_step_examples,
    read_targets,
)
from pipelines.storage.decode import decode_split

INPUTS = np.arange(60, dtype=np.float64).reshape(20, 3)
TARGETS = np.arange(20)


def opened(described, place="unused", **options):
    given = SourceOptions(cache_dir=str(place), **options)
    return open_dataset("mine", given, lambda: described)


def said(call, *arguments, **options):
    with pytest.raises(ValueError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def sizes(source):
    return {name: len(split) for name, split in source.splits.items()}


# Arrays


def test_arrays():
    source = opened(arrays(inputs=INPUTS, targets=TARGETS, class_names=20, shuffle=False))
    assert sizes(source) == {"train": 18, "validation": 2}
    assert source.inputs == tf.TensorSpec((3,), tf.float32)  # float64 becomes float32
    assert source.targets == tf.TensorSpec((), tf.int32) and source.classes == 20
    assert read_targets(source, source.validation, "unused").tolist() == [18, 19]


def test_fractions_of_sorted_arrays():
    """A fraction of rows sorted by class has rows of all classes, the same in every run."""
    labels = np.repeat(np.arange(3), 100)

    def held_out():
        described = arrays(inputs=INPUTS[labels], targets=labels, class_names=3, test=0.2)
        source = opened(described)
        splits = (source.train, source.validation, source.test)
        return [read_targets(source, split, "unused") for split in splits]

    first = held_out()
    assert sorted(np.concatenate(first)) == labels.tolist()
    assert all(np.bincount(split).min() > len(split) / 6 for split in first)
    assert all(map(np.array_equal, first, held_out()))


@pytest.mark.parametrize(
    ("held_out", "options", "expected"),
    [
        ({}, {"validation_split": "0"}, {"train": 20}),
        ({}, {"validation_split": "0.25"}, {"train": 15, "validation": 5}),
        ({"validation": 0.2, "test": 0.1}, {}, {"train": 14, "validation": 4, "test": 2}),
        ({"test": (INPUTS[:3], TARGETS[:3])}, {}, {"train": 18, "validation": 2, "test": 3}),
        ({"test": 0.5}, {"test_split": ""}, {"train": 9, "validation": 1}),
        ({"test": 0.5}, {"train_split": "train[:40%]"}, {"train": 3, "validation": 1, "test": 10}),
        (
            {"validation": 0.5},
            {"validation_split": "validation[:2]"},
            {"train": 10, "validation": 2},
        ),
    ],
)
def test_splits(held_out, options, expected):
    source = opened(arrays(inputs=INPUTS, targets=TARGETS, **held_out), **options)
    assert sizes(source) == expected
    splits = list(source.splits.values())
    assert not any(a.in_common(b) for a in splits for b in splits if a is not b)


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        ({"targets": TARGETS[:19]}, {}, "the first axes, of examples, have to be equal"),
        ({"inputs": np.array(["a"] * 20)}, {}, "have to be arrays of numbers"),
        ({"class_names": 19}, {}, "example 19 of mine has the class label 19, and there are 19"),
        ({"targets": TARGETS / 2, "class_names": 20}, {}, "class labels of mine are float32"),
        (
            {"inputs": [*INPUTS[:17], [1.0, 2.0], *INPUTS[18:]]},
            {},
            "row 17 has the shape (2,) and ",
        ),
        ({"inputs": [*INPUTS[:17], [1, 2, "3"], *INPUTS[18:]]}, {}, "row 17 has values of <U21"),
        (
            {"targets": [*range(17), None, 1, 2]},
            {},
            "mine, targets: row 17 has values of object; inputs",
        ),
        ({"inputs": 5}, {}, "the first axes, of examples, have to be equal"),
        ({"validation": 1.5}, {}, "validation=1.5 of mine: give a fraction between 0 and 1"),
        ({"validation": (INPUTS[:, :2], TARGETS)}, {}, "validation of mine has examples of"),
        ({}, {"test_split": "exam"}, "--test_split=exam: mine has train, or a part"),
        ({}, {"train_split": "train[20:]"}, "holds no examples"),
        ({}, {"input_features": "x"}, "--input_features=x: is for TFDS data sets"),
        ({"inputs": "none.npz:x"}, {}, "cannot read none.npz"),
    ],
)
def test_refuses_unusable_arrays(given, options, expected):
    given = {"inputs": INPUTS, "targets": TARGETS} | given
    assert expected in said(lambda: opened(arrays(**given), **options))


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=INPUTS, y=TARGETS)
    source = opened(arrays(inputs={"a": f"{path}:x"}, targets=f"{path}:y"))
    assert source.inputs == {"a": tf.TensorSpec((3,), tf.float32)}
    message = said(lambda: opened(arrays(inputs=f"{path}:z", targets=f"{path}:y")))
    assert "has the arrays x, y; give one as" in message


# Overlap


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"test_split": "train[70%:]", "train_split": "train[:80%]", "validation_split": "0"},
            "--test_split=train[70%:]: shares examples with --train_split=train[:80%]: 2 of its 6",
        ),
        (
            {"validation_split": "train[:3]"},
            "--validation_split=train[:3]: shares examples with --train_split=train: 3 of its 3",
        ),
        ({"validation_split": "0.2", "test_split": "train"}, "shares examples"),
    ],
)
def test_overlap_is_refused(options, expected):
    described = arrays(inputs=INPUTS, targets=TARGETS)
    message = said(lambda: opened(described, **options))
    assert expected in message and "--allow_overlap=true" in message
    assert opened(described, allow_overlap=True, **options).train
    # Evaluation and prediction of any split, with --split, are no test of training.
    if "train" in options.get("test_split", ""):
        assert opened(described, test_flag="split", **options).test


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train_split": "train+test"}, "--test_split=auto: shares examples with --train_split"),
        ({"train_split": "all"}, "180 of its 360 are in both"),
        (
            {"train_split": "train+train[:3]", "validation_split": ""},
            "--train_split=train+train[:3]: has 3 of its",
        ),
        (
            {"train_split": "train[:80%]", "test_split": "train[70%:]", "validation_split": ""},
            "--test_split=train[70%:]: shares examples with --train_split=train[:80%]: 144 of",
        ),
    ],
)
def test_overlap_of_records(cache_dir, options, expected):
    def digits(**more):
        return open_dataset("digits", SourceOptions(cache_dir=cache_dir, **options, **more), None)

    assert expected in said(digits)
    assert digits(allow_overlap=True).name == "digits"


# CSV files

CSV = """size, weight ,kind
1, 2.5,cat
2,3,dog
3,1e3,"cat"

4,0,eel
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "animals.csv"
    path.write_text(CSV)
    return str(path)


def test_csv(table):
    described = csv(table, inputs=["size", "weight"], target="kind", shuffle=False)
    source = opened(described, validation_split="0")
    found = read_examples(source, source.train, np.arange(4))
    assert found.inputs.tolist() == [[1, 2.5], [2, 3], [3, 1000], [4, 0]]
    assert source.class_names == ("cat", "dog", "eel") and found.targets.tolist() == [0, 1, 0, 2]
    assert source.inputs == tf.TensorSpec((2,), tf.float32)
    nested = csv(table, inputs={"a": "size", "b": ["weight"]}, target="weight")
    source = opened(nested, validation_split="0")
    assert source.inputs == {"a": tf.TensorSpec((), tf.float32), "b": tf.TensorSpec((1,))}
    assert source.targets == tf.TensorSpec((), tf.float32) and source.class_names == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('size,kind\n1,"a\nb"\n\n?,dog\n', "line 5: column 'size' is '?' and not a number"),
        ("size,kind\n1,cat\n\n\n2\n", "line 5: has 1 columns and the header 2"),
        ("size\n1\n", "has no column 'kind': it has size"),
        ("size,kind\n", "has no examples"),
        ("size,kind,size\n1,cat,2\n", "has two columns 'size'"),
        ("", "is empty"),
    ],
)
def test_refuses_bad_csv(tmp_path, text, expected):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert expected in said(lambda: opened(csv(str(path), inputs="size", target="kind")))


def test_csv_test_file(table, tmp_path):
    other = tmp_path / "test.csv"
    other.write_text("size,weight,kind\n1,1,eel\n")
    source = opened(csv(table, inputs="size", target="kind", test=str(other)))
    assert read_targets(source, source.test, "unused").tolist() == [2]
    other.write_text("size,weight,kind\n1,1,fox\n")
    described = csv(table, inputs="size", target="kind", test=str(other))
    assert "line 2: column 'kind' is 'fox', which no example to train on is" in said(
        lambda: opened(described)
    )


# Functions


def read(index):
    return {"x": np.full(2, index, np.float32), "id": index}, index % 3


def wrong_at_17(index):
    inputs, target = read(index)
    return (inputs | {"x": np.zeros(3, np.float32)} if index == 17 else inputs), target


def test_random_access():
    described = random_access(examples=40, read=read, class_names=3, test=0.25, shuffle=False)
    source = opened(described)
    assert sizes(source) == {"train": 27, "validation": 3, "test": 10}
    found = read_examples(source, source.test, np.array([1, 0]))
    assert found.inputs["id"].tolist() == [31, 30] and found.targets.tolist() == [1, 0]
    assert found.targets.dtype == np.int32


@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_example_of_other_shape(kind, tmp_path):
    """An example of another shape is named, before training or when it is read."""
    source = opened(random_access(examples=40, read=wrong_at_17, version="1"))

    def take_epoch():
        feed = open_feed(
            kind,
            source,
            source.train,
            global_batch_size=4,
            seed=0,
            layout=BatchLayout(),
            strategy=tf.distribute.get_strategy(),
            cache_dir=str(tmp_path),
        )
        for step in range(feed.steps_per_epoch):
            feed.open(step, 1)

    with pytest.raises(ValueError if kind == "resident" else RuntimeError) as error:
        take_epoch()
    assert str(error.value).startswith("example 17 of mine is 0/id scalar int64, 0/x 3 float32")
    assert "\n" not in str(error.value)


def odd_at_17(index):
    """Returns three numbers, and of example 17 two."""
    return np.zeros(2 if index == 17 else 3, np.float32), np.int32(index)


def generated():
    spec = tf.TensorSpec([3], tf.float32), tf.TensorSpec([], tf.int32)
    return tf.data.Dataset.from_generator(lambda: map(odd_at_17, range(40)), output_signature=spec)


def mapped():
    def example(index):
        inputs, target = tf.numpy_function(odd_at_17, [index], [tf.float32, tf.int32])
        return tf.ensure_shape(inputs, [None]), target

    def claimed(inputs, target):
        return tf.numpy_function(lambda x: x, [inputs], tf.float32), target

    def shaped(inputs, target):
        inputs.set_shape([3])
        target.set_shape([])
        return inputs, target

    return tf.data.Dataset.range(40).map(example).map(claimed).map(shaped)


@pytest.mark.parametrize("make", [generated, mapped])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pipeline_example_of_other_shape(make, split, tmp_path):
    """The example is named, whether TensorFlow finds its shape or nothing has compared it yet."""
    held = {"validation": make} if split == "validation" else {}

    def take_epoch():
        described = from_dataset(lambda seed, epoch: make(), examples=40, version="1", **held)
        feed = stream(opened(described), tmp_path)
        for step in range(feed.steps_per_epoch):
            feed.open(step, 1)

    with pytest.raises((ValueError, RuntimeError)) as error:
        take_epoch()
    assert "example 17" in str(error.value) and "\n" not in str(error.value)
    assert split in str(error.value)


def test_random_access_identity(tmp_path):
    """The digest is of all contents if there is no version, else of the version."""

    def identity(read_it, version="", examples=40):
        described = random_access(examples=examples, read=read_it, version=version)
        return data_identity(opened(described), str(tmp_path))

    def other(index):
        inputs, target = read(index)
        return inputs, target + (index == 33)

    assert identity(read) == identity(lambda index: read(index))
    assert not identity(other).matches(identity(read))
    assert identity(other, "1").matches(identity(read, "1"))
    assert not identity(read, "2").matches(identity(read, "1"))
    assert not identity(read, "1", 39).matches(identity(read, "1"))


def test_random_access_errors():
    def broken(index):
        raise KeyError("no such\nfile")

    message = said(lambda: opened(random_access(examples=3, read=broken)))
    assert "example 0 of mine cannot be read: KeyError" in message
    message = said(lambda: opened(random_access(examples=3, read=lambda index: index)))
    assert "read has to return a pair (inputs, targets)" in message


# Pipelines


def shuffled(seed, epoch, examples=20):
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    return tf.data.Dataset.from_tensor_slices((np.stack([order, -order], 1), order % 3))


def pipeline(**more):
    given = {"examples": 20, "version": "1", "validation": lambda: shuffled(0, 0).take(5)}
    return opened(from_dataset(shuffled, **(given | more)))


def stream(source, place, *, batch=4, layout=None, ahead=False):
    return open_feed(
        "stream",
        source,
        source.train,
        global_batch_size=batch,
        seed=7,
        layout=layout or BatchLayout(),
        strategy=tf.distribute.get_strategy(),
        cache_dir=str(place),
        include_next_example=ahead,
    )


def ids(feed, step):
    given = feed.open(step, 1).given
    batch = feed.batch(feed.next(given), tf.constant(step, tf.int64), 0)
    return batch.inputs.numpy()[:, 0][: int(batch.mask.numpy().sum())].tolist()


@pytest.mark.parametrize("batch", [3, 4, 20, 50])
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_pipeline_order(tmp_path, batch, block, monkeypatch):
    """Batches follow the pipeline of (seed, epoch), also if the feed is opened at a later step."""
    monkeypatch.setattr("pipelines.feeds.stream._TABLE", block)
    source = pipeline()
    feed = stream(source, tmp_path, batch=batch)
    per_epoch = feed.steps_per_epoch

    def expected(step):
        epoch, within = divmod(step, per_epoch)
        order = [int(x[0]) for x, _ in shuffled(7, epoch).as_numpy_iterator()]
        return order[within * batch : (within + 1) * batch]

    steps = 3 * per_epoch
    assert [ids(feed, step) for step in range(steps)] == [expected(s) for s in range(steps)]
    for start in (per_epoch + 1, 2, steps - 1):  # a resume in mid-epoch, and steps back
        assert ids(feed, start) == expected(start)
        assert ids(stream(source, tmp_path, batch=batch), start) == expected(start)


def test_pipeline_keeps_first_for_mixup(tmp_path, monkeypatch):
    """For mixup, an epoch's last example is followed by its first, which is kept until then."""
    monkeypatch.setattr("pipelines.feeds.stream._TABLE", 1)
    feed = stream(pipeline(), tmp_path, batch=8, ahead=True)
    for step in range(5):
        given = feed.open(step, 1).given
        batch = feed.batch(feed.next(given), tf.constant(step, tf.int64), 0)
        epoch, within = divmod(step, 3)
        order = [int(x[0]) for x, _ in shuffled(7, epoch).as_numpy_iterator()]
        rows = int(batch.mask.numpy().sum())
        assert batch.inputs.numpy()[rows, 0] == (order * 2)[within * 8 + rows]


@pytest.mark.parametrize("worker", [0, 1])
def test_pipeline_keeps_few_examples(worker):
    """A worker that reads its part of each batch keeps one batch and the first example at most."""
    examples, batch, part = 1000, 100, 50
    source = opened(
        from_dataset(lambda s, e: shuffled(s, e, examples), examples=examples, version="1")
    )
    reader = source.train.reader()
    order = [int(x[0]) for x, _ in shuffled(7, 0, examples).as_numpy_iterator()]
    for start in range(0, examples, batch):
        reader.forget(0, start)
        positions = np.arange(start, start + part) + worker * part
        assert reader.read_epoch(7, 0, positions)[0][:, 0].tolist() == [
            order[position] for position in positions
        ]
        (epoch,) = reader._epochs.values()
        assert len(epoch._kept) <= batch + 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"validation_split": "0.2"}, "--validation_split=0.2: mine is a pipeline, which nothing"),
        ({"validation_split": "train[:5]"}, "--validation_split=train[:5]: mine is a pipeline"),
        ({"test_split": "train[:5]"}, "--test_split=train[:5]: mine is a pipeline"),
    ],
)
@pytest.mark.parametrize("validation", [None, lambda: shuffled(0, 0).take(5)])
def test_nothing_is_cut_off_a_pipeline(validation, options, expected):
    described = from_dataset(shuffled, examples=20, version="1", validation=validation)
    assert expected in said(lambda: opened(described, **options))


def test_validation_of_a_pipeline():
    described = from_dataset(
        shuffled, examples=20, version="1", validation=lambda: shuffled(0, 0).take(5)
    )
    for text, expected in {"0.1": 5, "0": 0, "validation[:2]": 2}.items():
        source = opened(described, validation_split=text)
        assert (sizes(source)["train"], sizes(source).get("validation", 0)) == (20, expected)
    part = opened(described, test_split="train[:6]", test_flag="split")
    assert sizes(part)["test"] == 6  # --split evaluates any split


def test_pipeline_splits(tmp_path):
    source = pipeline()
    assert choose_feed("auto", source)[0] == "stream" and sizes(source)["validation"] == 5
    assert "give --feed=stream" in said(choose_feed, "resident", source)
    assert "order is the pipeline's" in source.notes[0]
    sample = source.train.part(0, 6, "train[:6]")
    order = [int(x[0]) for x, _ in shuffled(0, 0).as_numpy_iterator()]
    found = read_examples(source, sample, np.array([5, 0]))
    assert found.inputs[:, 0].tolist() == [order[5], order[0]]
    step = read_step_examples(source, source.train, 6, global_batch_size=4, seed=7)
    later = [int(x[0]) for x, _ in shuffled(7, 1).as_numpy_iterator()]
    assert step.inputs[:, 0].tolist() == later[4:8]
    assert decode_split(source, source.validation)[0][:, 0].tolist() == order[:5]
    assert data_identity(source, str(tmp_path)) != data_identity(
        pipeline(version="2"), str(tmp_path)
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"examples": 21}, "ended after 20 examples; 21 were promised"),
        (
            {"make": lambda seed, epoch: shuffled(seed, epoch).map(lambda x, y: (x[: y + 1], y))},
            "the inputs of mine vary in shape",
        ),
        ({"make": lambda seed, epoch: tf.data.Dataset.range(3)}, "have to be (inputs, targets)"),
        ({"make": lambda seed: None}, "make(0, 0) failed: TypeError"),
        (
            {"make": lambda seed, epoch: shuffled(seed, [][0] if epoch else 0)},
            "make(7, 1) failed: list index out of range",
        ),
        ({"validation": lambda: tf.data.Dataset.range(3).map(lambda i: (i, i))}, "example 0 of va"),
    ],
)
def test_refuses_bad_pipeline(tmp_path, more, expected):
    def take():
        given = {"examples": 20, "version": "1", "make": shuffled} | more
        source = opened(from_dataset(given.pop("make"), **given))
        feed = stream(source, tmp_path)
        for step in range(feed.steps_per_epoch + 1):
            ids(feed, step)

    with pytest.raises((ValueError, RuntimeError)) as error:
        take()
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_standardize_vectors(tmp_path):
    source = opened(arrays(inputs=INPUTS, targets=TARGETS), scale="standardize")
    done = fitted(source, str(tmp_path))
    train, _ = decode_split(done, done.train)
    scaled = done.preprocess(tf.constant(train)).numpy()
    assert np.allclose(scaled.mean(0), 0, atol=1e-6) and np.allclose(scaled.std(0), 1)


# All of them


@pytest.mark.parametrize("kind", ["arrays", "csv", "random_access", "pipeline"])
def test_any_step_of_a_fresh_feed(kind, table, tmp_path):
    """A feed that is opened inside an epoch returns the batches of an uninterrupted run."""
    source = {
        "arrays": lambda: opened(arrays(inputs=(INPUTS, {"x": TARGETS}), targets=TARGETS)),
        "csv": lambda: opened(csv(table, inputs=["size"], target="kind"), validation_split="0"),
        "random_access": lambda: opened(random_access(examples=20, read=read)),
        "pipeline": pipeline,
    }[kind]()
    one = stream(source, tmp_path, batch=3)
    for step in range(2 * one.steps_per_epoch):
        batches = [
            feed.batch(feed.next(feed.open(step, 1).given), tf.constant(step, tf.int64), 0)
            for feed in (one, stream(source, tmp_path, batch=3))
        ]
        for left, right in zip(*map(tf.nest.flatten, batches), strict=True):
            assert np.array_equal(left, right)


def test_masks_of_random_access():
    """Targets of any shape keep it, also where they are classes."""
    images = np.zeros((5, 8, 8, 1), np.uint8)
    masks = np.arange(5 * 64).reshape(5, 8, 8).astype(np.int32) % 2
    described = random_access(
        examples=5, read=lambda i: (images[i], masks[i]), class_names=2, version="1"
    )
    source = opened(described, validation_split="0")
    assert source.targets == tf.TensorSpec((8, 8), tf.int32)
    np.testing.assert_array_equal(
        read_examples(source, source.train, np.array([3])).targets, masks[3:4]
    )


def test_pipeline_is_read_once():
    """Reading in order, a part at a time, does not start the pipeline again for each part."""
    started = []

    def make(seed, epoch):
        started.append((seed, epoch))
        return shuffled(seed, epoch, 100)

    source = opened(from_dataset(make, examples=100, version="1"))
    reader, started[:] = source.train.reader(), []
    order = [int(x[0]) for x, _ in shuffled(0, 0, 100).as_numpy_iterator()]
    for start in range(0, 100, 10):
        found, _ = reader.read(np.arange(start, start + 10))
        assert found[:, 0].tolist() == order[start : start + 10]
    assert started == [(0, 0)]
    (epoch,) = reader._epochs.values()
    assert len(epoch._kept) <= 11
    assert reader.read(np.array([4]))[0][0, 0] == order[4] and len(started) == 2
    nothing = reader.read(np.array([], np.int64))
    assert nothing[0].shape == (0, 2) and nothing[1].shape == (0,)
