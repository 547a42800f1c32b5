"""Folders of pictures: formats, sizes, damaged files and splits."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import (
    BatchLayout,
    ImageFormat,
    Resize,
    SourceOptions,
    data_identity,
    image_spec,
    open_dataset,
    open_feed,
    read_examples,
    read_picture,
    read_stored_images,
    read_targets,
)
from pipelines.images.resize import FITS
from pipelines.sources.folder import folder
from pipelines.storage import picture_files
from pipelines.storage.decode import decode_split


def picture(seed, size=(9, 7), mode="RGB"):
    """Returns a random picture so smooth that JPEG hardly changes it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).convert(mode)


def pixels(path, mode="RGB"):
    with Image.open(path) as picture:
        return np.asarray(picture.convert(mode))


def fill(root, classes=("cat", "dog"), count=20, size=None, form="png"):
    """Writes pictures of random sizes, or of `size`, to a folder per class; returns `root`."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            sides = size or tuple(random.integers(5, 30, 2).tolist())
            picture(1000 * label + index, sides).save(root / name / f"{index}.{form}")
    return root


def opened(root, cache, **options):
    options = {"image_size": (6, 8)} | options
    return open_dataset(f"folder:{root}", SourceOptions(cache_dir=str(cache), **options), None)


def said(*arguments, **options):
    with pytest.raises(ValueError) as error:
        opened(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


FORMS = ("png", "bmp", "webp", "tiff", "gif")


@pytest.mark.parametrize(
    ("form", "fit"), [*((form, "crop") for form in FORMS), *(("jpg", fit) for fit in FITS)]
)
def test_pictures_of_any_size(tmp_path, form, fit):
    """Pixels to train on are those that predict gets of the files, which Pillow reads."""
    root = fill(tmp_path / "pets", count=4, form=form)
    source = opened(root, tmp_path / "cache", validation_split="0", fit=fit)
    assert (source.name, source.class_names) == ("pets", ("cat", "dog"))
    assert source.image_shape == (6, 8, 3) and source.stored_size is None
    images, labels = decode_split(source, source.train)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4
    assert np.array_equal(read_targets(source, source.train, "unused"), labels)
    expected, spec = {}, image_spec(source, ImageFormat(), "no")
    for label, name in enumerate(source.class_names):
        for path in (root / name).iterdir():
            expected[read_picture(str(path), spec).tobytes()] = label
    for image, label in zip(images, labels, strict=True):
        assert expected[image.tobytes()] == label
    stored = list(read_stored_images(source, source.train, np.arange(3), str(tmp_path / "cache")))
    assert [source.resize.array(each).tolist() for each in stored] == images[:3].tolist()


def test_turned_pictures(tmp_path):
    """The orientation in EXIF metadata is applied."""
    root = fill(tmp_path / "pets", count=1, size=(8, 6))
    exif = Image.Exif()
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        picture(77, (8, 6)).save(
            root / "cat" / f"{orientation}.jpg", exif=exif, quality=95, subsampling=0
        )
    source = opened(root, tmp_path / "cache", validation_split="0", fit="stretch")
    images, _ = decode_split(source, source.train)
    upright = np.asarray(picture(77, (8, 6)))
    turned = {
        Resize((6, 8), "stretch")
        .array(np.asarray(Image.fromarray(upright).transpose(how) if how is not None else upright))
        .tobytes()
        for how in (None, *Image.Transpose)
    }
    near = [
        min(
            np.abs(np.frombuffer(t, np.uint8) - image.reshape(-1).astype(int)).max() for t in turned
        )
        for image in images
    ]
    assert sum(distance < 20 for distance in near) == 7


def test_one_size_needs_no_option(tmp_path):
    root = fill(tmp_path / "pets", size=(9, 7))
    source = opened(root, tmp_path / "cache", image_size=None)
    assert source.image_shape == (7, 9, 3) and source.stored_size == (7, 9)
    picture(5, (9, 8)).save(root / "cat" / "other.png")
    message = said(root, tmp_path, image_size=None)
    assert "vary in size: give --image_size=64,64; " in message
    assert f"{root / 'cat' / 'other.png'} has 8x9 pixels" in message and "7x9 pixels" in message


def test_grey_pictures(tmp_path):
    root = tmp_path / "scans"
    for name in "ab":
        (root / name).mkdir(parents=True)
        for index in range(5):
            picture(index + ord(name), (8, 8), "L").save(root / name / f"{index}.png")
    source = opened(root, tmp_path / "cache", image_size=None, validation_split="0")
    assert source.image_shape == (8, 8, 1)
    images, _ = decode_split(source, source.train)
    files = {pixels(p, "L").tobytes() for p in root.rglob("*.png")}
    assert {image.tobytes() for image in images} == files


def test_damaged_files(tmp_path):
    """Damaged files are listed in an error before training, or skipped with `--skip_damaged`."""
    root = fill(tmp_path / "pets")
    jpeg = root / "cat" / "cut.jpg"
    picture(1, (300, 200)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    (root / "dog" / "empty.png").touch()
    (root / "dog" / "text.jpeg").write_text("no picture")
    (root / "dog" / "notes.txt").write_text("by hand")
    (root / "dog" / ".hidden").write_text("")
    message = said(root, tmp_path / "cache")
    assert message.startswith(f"1 of 21 pictures in {root} cannot be read") is False
    assert "3 of 43 pictures" in message and "--skip_damaged=true" in message
    for name in ("cut.jpg (", "empty.png (it is empty)", "text.jpeg (is not a picture"):
        assert name in message
    source = opened(root, tmp_path / "cache", skip_damaged=True)
    assert sum(map(len, source.splits.values())) == 40
    assert len([note for note in source.notes if note.startswith("skipped")]) == 3
    assert source.notes[-1] == f"ignored 1 files in {root} that are no pictures"
    many = [root / "cat" / f"bad{i}.png" for i in range(30)]
    for path in many:
        path.write_bytes(b"x")
    assert ", and 23 more; repair" in said(root, tmp_path / "cache")
    notes = opened(root, tmp_path / "cache", skip_damaged=True).notes
    assert len(notes) == 12 and notes[10] == f"skipped 23 more damaged files in {root}"


def test_checked_once(tmp_path, monkeypatch):
    root = fill(tmp_path / "pets")
    first = opened(root, tmp_path / "cache")
    checked = []
    check = picture_files._check
    monkeypatch.setattr(picture_files, "_check", lambda p: checked.append(p) or check(p))
    assert opened(root, tmp_path / "cache").train.digest() == first.train.digest()
    assert checked == []
    path = root / "cat" / "3.png"
    picture(99).save(path)
    assert opened(root, tmp_path / "cache").train.digest() != first.train.digest()
    assert checked == [str(path)]


def test_split_by_content(tmp_path):
    """A file stays in its split if files are renamed, added or removed."""
    root = fill(tmp_path / "pets", count=60)

    def contents(split):
        return {
            (f.digest, label) for _, label, f in map(split.table._files.__getitem__, split.rows)
        }

    source = opened(root, tmp_path / "cache", validation_split="0.2")
    before = contents(source.validation)
    assert 8 <= len(before) <= 40 and not before & contents(source.train)
    identity = data_identity(source, str(tmp_path / "cache"))
    for index, path in enumerate(sorted((root / "cat").iterdir())):
        path.rename(root / "cat" / f"renamed{(index * 7) % 60:03}.png")
    again = opened(root, tmp_path / "cache", validation_split="0.2")
    assert contents(again.validation) == before
    assert data_identity(again, str(tmp_path / "cache")) == identity
    for path in list((root / "dog").iterdir())[:30]:
        path.unlink()
    fewer = opened(root, tmp_path / "cache", validation_split="0.2")
    assert contents(fewer.validation) < before
    assert not data_identity(fewer, str(tmp_path / "cache")).matches(identity)


def test_same_content_in_one_split(tmp_path):
    root = fill(tmp_path / "pets", count=10)
    for path in list((root / "cat").iterdir()):
        shutil.copy(path, root / "cat" / f"copy_{path.name}")
    source = opened(root, tmp_path / "cache", validation_split="0.3")
    digests = [
        {source.train.table._files[row][2].digest for row in split.rows}
        for split in (source.train, source.validation)
    ]
    assert not digests[0] & digests[1]


@pytest.mark.parametrize("validation", ["val", "validation", None])
def test_split_folders(tmp_path, validation):
    for seed, name in enumerate(filter(None, ("train", "test", validation))):
        fill(tmp_path / "pets" / name, count=10 + seed)
    source = opened(tmp_path / "pets", tmp_path / "cache")
    found = {name: len(split) for name, split in source.splits.items()}
    assert found["test"] == 22 and found["train"] + found["validation"] == (
        44 if validation else 20
    )
    if validation:
        assert found["validation"] == 24
    shutil.copytree(tmp_path / "pets" / "test" / "cat", tmp_path / "pets" / "test" / "fox")
    assert "test/fox is a class that" in said(tmp_path / "pets", tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "of_folder", "expected"),
    [
        ("0.1", None, {"train": 40, "validation": 24}),
        ("0", None, {"train": 40}),
        ("0.4", None, {"train": 24, "validation": 16}),
        ("0.1", 0.4, {"train": 24, "validation": 16}),
        ("0", 0.4, {"train": 40}),
        ("0.4", 0.2, {"train": 24, "validation": 16}),
        ("validation[:5]", None, {"train": 40, "validation": 5}),
    ],
)
def test_validation_split_goes_first(tmp_path, text, of_folder, expected):
    """`--validation_split`, if given, goes before the folder "validation" and the argument."""
    fill(tmp_path / "pets" / "train", count=20)
    if of_folder is None:
        fill(tmp_path / "pets" / "validation", count=12)
    described = folder(str(tmp_path / "pets"), validation=of_folder)
    options = SourceOptions(
        cache_dir=str(tmp_path / "cache"), image_size=(8, 8), validation_split=text
    )
    source = described.open("pets", options)
    found = {name: len(split) for name, split in source.splits.items()}
    assert found.keys() == expected.keys() and sum(found.values()) == sum(expected.values())
    # A fraction is selected by hashes of the contents, so it is not exact.
    exact = text in ("0.1", "0", "validation[:5]") and of_folder is None
    assert all(abs(found[name] - expected[name]) <= (0 if exact else 8) for name in found)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "there is no such folder"),
        (("pets/a.png",), "has no folders, which are the classes"),
        (("pets/cat/a.txt",), "has no pictures in folders of classes"),
        (("pets/test/cat/a.txt",), "has test and no train"),
    ],
)
def test_refuses_other_folders(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert expected in said(tmp_path / "pets", tmp_path / "cache")


def test_file_that_vanished(tmp_path):
    root = fill(tmp_path / "pets")
    source = opened(root, tmp_path / "cache", validation_split="0")
    path, _, _ = source.train.table._files[3]
    os.unlink(path)
    with pytest.raises(ValueError, match=f"cannot read {path}"):
        read_examples(source, source.train, np.array([3]))


@pytest.mark.parametrize("image_size", [(6, 8), None])
def test_feeds_agree(tmp_path, image_size):
    root = fill(tmp_path / "pets", size=None if image_size else (9, 7))
    source = opened(root, tmp_path / "cache", image_size=image_size)
    feeds = [
        open_feed(
            kind,
            source,
            source.train,
            global_batch_size=5,
            seed=1,
            layout=BatchLayout(),
            strategy=tf.distribute.get_strategy(),
            cache_dir=str(tmp_path / "cache"),
        )
        for kind in ("resident", "stream")
    ]
    for step in (4, 9):
        one, other = (
            feed.batch(feed.next(feed.open(step, 1).given), tf.constant(step, tf.int64), 0)
            for feed in feeds
        )
        for left, right in zip(one, other, strict=True):
            assert np.array_equal(left, right)


def test_file_damaged_since_its_check(tmp_path):
    """A file damaged after the check is named, with the advice to repair or remove that file."""
    root = fill(tmp_path / "pets")
    source = opened(root, tmp_path / "cache", validation_split="0")
    path, _, _ = source.train.table._files[7]
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n damaged since")
    with pytest.raises(ValueError) as error:
        decode_split(source, source.train)
    assert path in str(error.value) and "repair or remove the file" in str(error.value)
    assert "delete" not in str(error.value) and "\n" not in str(error.value)
