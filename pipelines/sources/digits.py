"""The embedded data set: scikit-learn's handwritten digits, as a TFDS data set.

1,797 scans of 8 x 8 pixels (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
Digits, UCI Machine Learning Repository, 1998). Only preparing the data set requires scikit-learn.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pipelines.errors import one_line_message
from pipelines.sources.preparation import quiet

_FRAME_BYTES = 16  # of a TFRecord: the length and the CRCs of the length and of the data


# Not registered with TFDS, which would reject a second import; open_source does not need it.
class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of scans of handwritten digits: image uint8 [8, 8, 1], label in 0..9.

    Every fifth scan, from the first, is in test (360); the others are in train (1,437).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        # Not encoded: as PNG, 64 pixels take more bytes.
        image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8)
        label = tfds.features.ClassLabel(num_classes=10)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8 x 8 pixels, from scikit-learn.",
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(False), "test": self._generate_examples(True)}

    def _generate_examples(self, test: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits

        scans = load_digits()
        images = np.rint(scans.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        for index, (image, label) in enumerate(zip(images, scans.target, strict=True)):
            if (index % 5 == 0) == test:
                yield index, {"image": image, "label": int(label)}


def prepared(cache_dir: str) -> Any:
    """Returns the TFDS builder of the digits; prepares them in `cache_dir`/digits if necessary.

    Several processes may call this at once. A damaged copy is replaced.

    Raises:
      ValueError: when the digits cannot be written to `cache_dir`, scikit-learn is missing, or the
        prepared copy is damaged.
    """
    root = Path(cache_dir).expanduser()
    directory = root / "digits" / str(Digits.VERSION)
    if (builder := _intact(directory)) is not None:
        return builder
    try:
        _prepare(directory)
    except ImportError as error:
        raise ValueError(
            "preparing the digits data set requires scikit-learn: pip install scikit-learn"
        ) from error
    except OSError as error:
        raise ValueError(
            f"cannot prepare the digits data set in {root}: {one_line_message(error)}; give a "
            "--cache_dir that can be written"
        ) from error
    if (builder := _intact(directory)) is None:
        raise ValueError(f"the digits data set in {directory} is damaged: remove it")
    return builder


def _prepare(directory: Path) -> None:
    """Writes the digits to `directory` atomically; keeps an intact copy by another process.

    Raises:
      ImportError: when scikit-learn is missing.
      OSError: when the directory cannot be written.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=directory.parent) as temporary:
        with quiet():
            builder = Digits(data_dir=temporary)
            builder.download_and_prepare(file_format="tfrecord")
        if directory.exists() and _intact(directory) is None:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                os.rename(directory, Path(temporary) / "damaged")
        try:
            os.rename(builder.data_dir, directory)
        except OSError:  # another process may have published its copy first, of the same bytes
            if _intact(directory) is None:
                raise


def _intact(directory: Path) -> Any | None:
    """Returns the builder of the digits in `directory`; None if files are missing or truncated."""
    try:
        with quiet():
            builder = tfds.builder_from_directory(str(directory))
        for name in ("train", "test"):
            split = builder.info.splits[name]
            expected = split.num_bytes + _FRAME_BYTES * split.num_examples
            if sum(os.path.getsize(path) for path in split.filepaths) != expected:
                return None
    except Exception:  # on any error, a new copy is prepared
        return None
    return builder
