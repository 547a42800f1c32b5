"""Reads and writes checkpoint files: named arrays and a manifest in one uncompressed npz file.

`numpy.load(path)` opens the file without Tapeline. One more member, `manifest.json`, contains the
metadata, and the dtype, shape and SHA-256 digest of each array. The file is written under a
temporary name and renamed after fsync, so that a kill or a full disk leaves no partial file under
its final name. On reading, the digest of every array is verified.
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
PART = ".part"  # suffix of the temporary name while a file is written

_MANIFEST = "manifest.json"
_MEMBER = ".npy"
_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: removed on a network file system while open


class DamagedError(OSError):
    """Raised when a checkpoint file is missing, unreadable, or differs from what was written."""


class MissingError(DamagedError):
    """Raised when a checkpoint file does not exist, or was removed while it was open."""


class FormatVersionError(ValueError):
    """Raised when a checkpoint file has a format that this version of Tapeline cannot read."""


@dataclass(frozen=True)
class CheckpointContents:
    """The contents of a checkpoint.

    Attributes:
      facts: metadata, as passed to `write`.
      arrays: arrays by name.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(path: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint durably: after the return, a power failure does not lose the file.

    Args:
      path: path of the file; an existing file is replaced only when the new one is complete.
      facts: metadata that JSON can represent.
      arrays: arrays by name, of any NumPy or TensorFlow dtype.

    Raises:
      OSError: if the file cannot be written; no partial file remains.
    """
    described = {name: _described(array) for name, array in arrays.items()}
    manifest = {"format": FORMAT, **facts, "arrays": described}
    with _whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        for name, array in arrays.items():
            with archive.open(name + _MEMBER, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _plain(array), allow_pickle=False)


def copy(path: str, to: str) -> None:
    """Copies a checkpoint file, as durably as `write` writes it.

    Raises:
      OSError: if a file cannot be read or written; no partial file remains.
    """
    with open(path, "rb") as file, _whole(to) as other:
        shutil.copyfileobj(file, other, 1 << 20)


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """Opens a temporary file; renames it to `path` after fsync, or removes it on an error."""
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
    """Calls fsync on a directory, so that renames and removals in it survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str) -> CheckpointContents:
    """Reads a checkpoint and validates all arrays.

    The file is opened only once, so that a local file can be read completely even if it is removed
    meanwhile.

    Raises:
      MissingError: if the file does not exist, or was removed while it was open.
      DamagedError: if the file cannot be read, or differs from what was written.
      FormatVersionError: if this version of Tapeline cannot read the format.
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

    Does not read or validate the arrays.

    Raises:
      DamagedError, FormatVersionError: as in `read`.
    """
    with _opened(path) as archive:
        return _facts(path, archive)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a checkpoint; converts errors, also those in the `with` block, to DamagedError.

    A FormatVersionError is not converted.
    """
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
    """Returns an array of a dtype that NumPy has: bfloat16, for example, as 16-bit integers."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow's additional dtypes; the import registers them with NumPy

        return np.dtype(getattr(ml_dtypes, name))
