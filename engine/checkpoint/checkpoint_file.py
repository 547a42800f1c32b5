"""A checkpoint's file format: named arrays and a manifest in one uncompressed npz.

`numpy.load(path)` opens the file anywhere. It has one more member, `manifest.json`, which describes
the checkpoint and has a SHA-256 of each array. The file is written under a temporary name and
renamed after fsync, so a kill or a full disk leaves no partial file under its name. On reading,
every array is compared with its digest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

FORMAT = 1
SUFFIX = ".npz"
PART = ".part"  # suffix of a file that is being written

_MANIFEST = "manifest.json"
_MEMBER = ".npy"
_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: removed on a network file system while open


class DamagedError(OSError):
    """A file that is not what was written, or that is missing."""


class MissingError(DamagedError):
    """A file that does not exist, or no longer exists."""


class FormatVersionError(ValueError):
    """A file that another version of Tapeline wrote, and that this one cannot read."""


@dataclass(frozen=True)
class CheckpointContents:
    """The contents of a checkpoint.

    Attributes:
      facts: its metadata, as passed to `write`.
      arrays: its arrays, by name.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(path: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint; once it returns, a power failure does not lose the file.

    Args:
      path: path of the file; an existing file stays until the new one is complete.
      facts: metadata that JSON can represent.
      arrays: arrays by name, of any NumPy or TensorFlow dtype.

    Raises:
      OSError: if it cannot be written; no partial file remains.
    """
    described = {name: _described(array) for name, array in arrays.items()}
    manifest = {"format": FORMAT, **facts, "arrays": described}
    with _whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        for name, array in arrays.items():
            with archive.open(name + _MEMBER, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _plain(array), allow_pickle=False)


def copy(path: str, to: str) -> None:
    """Writes a copy of an existing checkpoint, as safely as `write`.

    Raises:
      OSError: if it cannot be read or written; no partial file remains.
    """
    with open(path, "rb") as file, _whole(to) as other:
        shutil.copyfileobj(file, other, 1 << 20)


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """Opens a file for writing, and renames it to `path` after fsync; removes it on an error."""
    part = path + PART
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Makes renames and removals in a directory survive a power failure (fsync)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str) -> CheckpointContents:
    """Reads a checkpoint and validates all of its arrays.

    The file is opened once, so it is read to its end even if it is removed meanwhile.

    Raises:
      MissingError: if it does not exist.
      DamagedError: if it is not what was written.
      FormatVersionError: if another version of Tapeline wrote it.
    """
    with _opened(path) as archive:
        facts = _facts(path, archive)
        described = facts.pop("arrays")
        arrays = {}
        for name, wanted in described.items():
            with archive.open(name + _MEMBER) as member:
                stored = np.lib.format.read_array(member, allow_pickle=False)
            array = stored.view(_dtype(wanted["dtype"])).reshape(wanted["shape"])
            if _described(array) != wanted:
                raise DamagedError(f"{name} is not what was written")
            arrays[name] = array
        return CheckpointContents(facts, arrays)


def read_metadata(path: str) -> dict[str, Any]:
    """Reads a checkpoint's metadata, and {"arrays": {name: {"dtype", "shape", "sha256"}}}.

    The arrays are not validated.

    Raises:
      DamagedError, FormatVersionError: as `read`.
    """
    with _opened(path) as archive:
        return _facts(path, archive)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a checkpoint; raises any error, also of readers in the block, as DamagedError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FormatVersionError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            words = error.strerror
        else:
            words = " ".join(str(error).split()) or type(error).__name__
        gone = isinstance(error, OSError) and error.errno in _GONE
        kind = MissingError if gone else DamagedError
        raise kind(f"cannot load checkpoint {path}: {words}") from error


def _facts(path: str, archive: zipfile.ZipFile) -> dict[str, Any]:
    facts = json.loads(archive.read(_MANIFEST))
    if (written := facts.pop("format")) != FORMAT:
        raise FormatVersionError(
            f"{path} has the checkpoint format {written}, and this version of Tapeline reads "
            f"format {FORMAT}: go on with the version that wrote it, or give another --run_dir"
        )
    return facts


def _described(array: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(content.data).hexdigest(),
    }


def _plain(array: np.ndarray) -> np.ndarray:
    """Returns an array that NumPy alone can read: bfloat16, for example, as 16-bit integers."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow's own dtypes; importing it registers them with NumPy

        return np.dtype(getattr(ml_dtypes, name))
