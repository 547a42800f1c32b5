"""Random resized crop of pictures, where the streaming feed decodes them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipelines import (
    BatchLayout,
    SourceOptions,
    augmentation_of,
    choose_feed,
    feed_kinds,
    open_dataset,
    open_feed,
    read_examples,
    read_step_examples,
    read_stored_images,
    with_crop,
)
from pipelines.augmentation.resized_crop import TRIES, ResizedCrop, parsed
from pipelines.sources.tfds import open_source
from tests.harness import strategy_of
from tests.nested import source_of
from tests.unit.test_feed import global_batch
from tests.unit.test_folder import fill

COUNT, BATCH = 20, 8  # examples to train on, and in a batch: 3 steps an epoch
SEED = 5


def said(call, *arguments):
    with pytest.raises(ValueError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Opens a folder of pictures of odd sizes, cropped at random in training."""
    place = tmp_path_factory.mktemp("crop")
    fill(place / "pets" / "train", count=12)
    options = SourceOptions(cache_dir=str(place), image_size=(6, 8), validation_split="0.2")
    plain = open_dataset(f"folder:{place / 'pets'}", options, None)
    assert len(plain.train) == COUNT
    return with_crop(plain, "flip,resized_crop:0.2:1.5")


def opened(source, place, *, split="train", seed=SEED, replicas=1, micro_batches=1, mixup=False):
    return open_feed(
        "stream",
        source,
        getattr(source, split),
        global_batch_size=BATCH,
        seed=seed,
        layout=BatchLayout(replicas, micro_batches),
        strategy=strategy_of(replicas),
        cache_dir=str(place),
        include_next_example=mixup,
    )


def rows(feed, step, replicas=1):
    """Returns the images of one step, without padding."""
    batch = global_batch(feed, strategy_of(replicas), step)
    return batch[0][batch[2] > 0]


# The feed


def test_pure_over_epochs_and_kills(source, tmp_path):
    """A feed that is opened at a later step has the pictures of one that came from step 0."""
    feed = opened(source, tmp_path)
    first = [rows(feed, step) for step in range(6)]
    later = opened(source, tmp_path)
    for step in (4, 2):
        assert np.array_equal(rows(later, step), first[step])
    other = opened(source, tmp_path, seed=SEED + 1)
    assert not np.array_equal(rows(other, 0), first[0])

    # The same example has another box in each epoch, and the other pixels of its own picture.
    step_of = [
        read_step_examples(source, source.train, step, global_batch_size=BATCH, seed=SEED)
        for step in range(6)
    ]
    for step, examples in enumerate(step_of):
        assert np.array_equal(examples.inputs, first[step])
    by_epoch = []
    for epoch in (step_of[:3], step_of[3:]):
        indices = np.concatenate([each.indices for each in epoch])
        assert sorted(indices) == list(range(COUNT))
        by_epoch.append(np.concatenate([each.inputs for each in epoch])[np.argsort(indices)])
    assert all(not np.array_equal(*images) for images in zip(*by_epoch, strict=True))


def test_same_pictures_on_replicas(source, tmp_path):
    """Replicas and micro-batches share the pictures that one replica has."""
    one, two = (opened(source, tmp_path, replicas=n) for n in (1, 2))
    for step in (0, 2, 4):
        assert np.array_equal(rows(one, step), rows(two, step, replicas=2))
    feed = opened(source, tmp_path, micro_batches=2)
    given = feed.open(1, 1).given
    parts = [feed.batch(given, tf.constant(1, tf.int64), 0, i).inputs for i in range(2)]
    assert np.array_equal(np.concatenate(parts), rows(one, 1))


def test_mixed_example_has_its_own_crop(source, tmp_path):
    """The example after the last row of a batch, for mixup, is the first row of the next batch."""
    mixed, plain = (opened(source, tmp_path, mixup=mixup) for mixup in (True, False))
    for step, following in ((0, 1), (2, 0)):  # an epoch is followed by its own first example
        given = mixed.open(step, 1).given
        images = mixed.batch(given, tf.constant(step, tf.int64), 0).inputs.numpy()
        assert np.array_equal(images[-1], rows(plain, following)[0])
    step = read_step_examples(
        source, source.train, 2, global_batch_size=BATCH, seed=SEED, include_next_example=True
    )
    assert np.array_equal(step.inputs[-1], images[-1])


def test_crops_stored_pictures(source, tmp_path):
    """Pixels are those of the box of the whole picture, resized; the box is drawn by position."""
    step = read_step_examples(source, source.train, 1, global_batch_size=BATCH, seed=SEED)
    whole = list(read_stored_images(source, source.train, step.indices, str(tmp_path)))
    positions = np.arange(BATCH, 2 * BATCH)
    draws = source.crop.draws(SEED, np.zeros(BATCH, int), positions)
    resize = dataclasses.replace(source.resize, fit="stretch")
    for picture, image, drawn in zip(whole, step.inputs, draws, strict=True):
        top, left, height, width = source.crop.box(drawn, *picture.shape[:2]).numpy()
        box = picture[top : top + height, left : left + width]
        assert box.shape[:2] == (height, width)
        assert np.array_equal(resize.array(box), image)


def test_evaluation_is_not_cropped(source, tmp_path):
    plain = dataclasses.replace(source, crop=None)
    for split in ("train", "validation"):
        cropped, whole = (
            rows(opened(each, tmp_path, split=split, seed=None), 0) for each in (source, plain)
        )
        assert np.array_equal(cropped, whole)
        some = np.arange(len(whole))
        assert np.array_equal(read_examples(source, getattr(source, split), some).inputs, whole)


@pytest.mark.parametrize("kind", ["digits", "arrays"])
def test_pictures_of_one_size(kind, cache_dir, tmp_path):
    if kind == "digits":
        plain = open_source("digits", data_dir=None, cache_dir=cache_dir)
    else:
        random = np.random.default_rng(0)
        images = random.random((20, 9, 7, 3), np.float32)
        plain = source_of(images, np.arange(20, dtype=np.int32))
    source = with_crop(plain, "resized_crop")
    assert augmentation_of("resized_crop", source) is None and source.crop == ResizedCrop()
    found = rows(opened(source, tmp_path), 0)
    uncropped = rows(opened(plain, tmp_path), 0)
    assert found.shape == uncropped.shape and found.dtype == uncropped.dtype
    same = [np.array_equal(*images) for images in zip(found, uncropped, strict=True)]
    assert sum(same) <= 1  # a box may be the whole picture
    whole = with_crop(plain, "resized_crop:1:1")
    if kind == "digits":  # square
        assert np.array_equal(rows(opened(whole, tmp_path), 0), uncropped)


# The boxes


def boxes(crop, count, height, width, seed=0):
    draws = crop.draws(seed, np.zeros(count, int), np.arange(count))
    of = tf.function(lambda drawn: crop.box(drawn, height, width), autograph=False)
    return draws, tf.map_fn(of, tf.constant(draws), fn_output_signature=tf.int32).numpy()


@pytest.mark.parametrize("size", [(1000, 1000), (30, 200), (300, 20), (1, 7)])
def test_boxes_are_torchvisions(size):
    """A loop over the tries, as torchvision has it, gives the same boxes from the same draws."""
    height, width = size
    crop = ResizedCrop(0.08, 4 / 3)
    draws, found = boxes(crop, 100, height, width)
    fallbacks = 0
    for drawn, box in zip(draws, found, strict=True):
        top, left, rows, columns = box
        assert 0 <= top <= height - rows and 0 <= left <= width - columns
        assert rows >= 1 and columns >= 1
        for one, other in drawn[:TRIES] * np.sqrt(height * width):
            if 0 < round(one) <= height and 0 < round(other) <= width:
                assert (rows, columns) == (round(one), round(other))
                break
        else:
            fallbacks += 1
            if width / height < 3 / 4:
                sides = max(1, round(width / (3 / 4))), width
            else:
                sides = height, max(1, round(height * 4 / 3))
            assert (rows, columns) == sides
            assert (top, left) == ((height - rows) // 2, (width - columns) // 2)
    assert (fallbacks > 0) == (max(size) / min(size) > 4)


def test_distribution_of_boxes():
    """Areas, logarithms of ratios and places are uniform where every box fits."""
    count = 4000
    crop = ResizedCrop(0.1, 1.5)
    draws = crop.draws(0, np.zeros(count, int), np.arange(count))
    area, ratio = draws[:, 0].prod(1), draws[:, 0, 1] / draws[:, 0, 0]
    for uniform in (
        (area - 0.1) / 0.9,
        (np.log(ratio) / np.log(1.5) + 1) / 2,
        draws[:, -1, 0],
        draws[:, -1, 1],
    ):
        apart = np.abs(np.sort(uniform) - (np.arange(count) + 0.5) / count).max()
        assert apart < 1.95 / np.sqrt(count)  # Kolmogorov and Smirnov: one in a thousand is larger
    columns = np.stack([area, ratio, *draws[:, -1].T])
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 4 / np.sqrt(count)
    _, found = boxes(ResizedCrop(0.25, 1), 400, 400, 400)
    shares = found[:, 2] * found[:, 3] / 400**2
    assert shares.min() >= 0.249 and abs(shares.mean() - 0.625) < 4 * 0.75 / np.sqrt(12 * 400)


def test_draws_are_pure():
    """A row of draws depends on its own seed, epoch and position."""
    crop, positions = ResizedCrop(), np.arange(1000)
    whole = crop.draws(3, np.repeat([0, 1], 500), positions)
    for k in (0, 1, 499, 500, 999):
        assert np.array_equal(
            crop.draws(3, np.array([k // 500]), positions[k : k + 1])[0], whole[k]
        )
    assert len(np.unique(whole)) == whole.size
    assert not np.isin(crop.draws(4, np.zeros(1000, int), positions), whole).any()


# The option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "the smallest area must be above 0 and at most 1"),
        ("1.2", "the smallest area must be above 0 and at most 1"),
        ("nan", "the smallest area must be above 0"),
        ("0.5:0.9", "the largest ratio of the sides must be 1 to 100"),
        ("0.5:inf", "the largest ratio of the sides must be 1 to 100"),
        ("half", "give resized_crop:MIN_AREA:MAX_ASPECT"),
        ("0.5:2:3", "give resized_crop:MIN_AREA:MAX_ASPECT"),
        ("", "give resized_crop:MIN_AREA:MAX_ASPECT"),
    ],
)
def test_refuses_numbers(text, expected):
    message = said(parsed, f"--augment=resized_crop:{text}", text)
    assert message.startswith(f"--augment=resized_crop:{text}: ") and expected in message


def test_parsed():
    assert parsed("", None) == ResizedCrop(0.08, 4 / 3)
    assert parsed("", "0.3") == ResizedCrop(0.3, 4 / 3)
    assert parsed("", "0.3:2") == ResizedCrop(0.3, 2.0)


def test_feed_of_crops(source):
    assert choose_feed("auto", source)[0] == "stream" and feed_kinds(source) == ("stream",)
    message = said(choose_feed, "resident", source)
    assert message.startswith("--feed=resident: --augment=resized_crop") and "=stream" in message


@pytest.mark.parametrize("name", ["resized_crop", "flip", "rotation"])
def test_refuses_masks(name):
    """An augmentation of images alone would move pixels away from their mask."""
    images = np.zeros((4, 8, 8, 3), np.uint8)
    masks = source_of(images, np.zeros((4, 8, 8), np.int32))
    message = said(with_crop, masks, name)
    assert f"--augment={name}: {name} moves the pixels of images and not the targets" in message
    no_images = source_of(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
    assert "is of images, and the inputs are no images" in said(with_crop, no_images, name)
