"""The embedded data set: all digits of scikit-learn, even if the prepared copy is damaged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from pipelines.sources import digits
from pipelines.sources.tfds import open_source

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    digits.prepared(str(directory))
    return directory


def examples(source, records):
    (path, first, last), *others = records.ranges
    assert not others and first == 0
    decoded = tf.data.TFRecordDataset(path, buffer_size=1 << 20).map(source.decode)
    return [(image, int(label)) for image, label in decoded.take(last).as_numpy_iterator()]


def as_set(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_all_scans_and_labels(cache):
    """Every scan has its label, and pixel values are scaled to 0..255."""
    source = open_source("digits", data_dir=None, cache_dir=str(cache), validation_split="")
    scans = load_digits()
    images = np.rint(scans.images * 255 / 16).astype(np.uint8)
    test = np.arange(len(images)) % 5 == 0
    assert (len(source.train), len(source.test), source.validation) == (1437, 360, None)
    for records, chosen in ((source.train, ~test), (source.test, test)):
        found_images, found_labels = zip(*examples(source, records), strict=True)
        assert found_images[0].shape == (8, 8, 1) and found_images[0].dtype == np.uint8
        assert as_set(found_images, found_labels) == as_set(images[chosen], scans.target[chosen])
    assert images.max() == 255
    assert source.image_shape == (8, 8, 1) and source.classes == 10


def test_prepare_leaves_no_other_files(cache):
    assert [path.name for path in cache.iterdir()] == ["digits"]
    assert [path.name for path in (cache / "digits").iterdir()] == ["1.0.0"]


def test_prepared_without_sklearn(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert digits.prepared(str(cache)).info.splits["test"].num_examples == 360


def test_error_without_sklearn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        digits.prepared(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled"])
def test_repairs_damaged_copy(cache, tmp_path, damage):
    directory = Path(digits.prepared(str(tmp_path)).data_dir)
    shard = directory / "digits-train.tfrecord-00000-of-00001"
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(whole[:-7])
    else:
        (directory / "dataset_info.json").write_text("{")
    digits.prepared(str(tmp_path))
    assert shard.read_bytes() == whole
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_names_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--cache_dir"):
        digits.prepared(str(tmp_path / "file"))


def test_concurrent_preparation(tmp_path):
    code = f"from pipelines.sources import digits; digits.prepared({str(tmp_path)!r})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == ["", ""]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_second_import():
    saved = sys.modules.pop("pipelines.sources.digits")
    try:
        import pipelines.sources.digits as again

        assert again is not saved
    finally:
        sys.modules["pipelines.sources.digits"] = saved
        sys.modules["pipelines.sources"].digits = saved


def test_version_without_data_dir(cache, tmp_path):
    source = open_source("digits:1.0.0", data_dir=str(tmp_path / "none"), cache_dir=str(cache))
    assert (source.name, source.version) == ("digits", "1.0.0")
    with pytest.raises(ValueError, match=r"the only version is digits:1\.0\.0"):
        open_source("digits:2.0.0", data_dir=None, cache_dir=str(cache))
