"""Reads and writes checkpoint files: named arrays and `manifest.json` in an uncompressed npz file.

The manifest contains the format version and the metadata, and the dtype, shape and SHA-256 digest
of each array.
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
from typing import Any, BinaryIO, NamedTuple

import numpy as np

FORMAT = 1
SUFFIX = ".npz"
PART = ".part"  # suffix of the temporary name while a file is written

_MANIFEST = "manifest.json"
_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: removed on a network file system while open


class DamagedError(OSError):
    """Raised when a checkpoint file is missing or unreadable, or differs from what was written."""


class MissingError(DamagedError):
    """Raised when a checkpoint file does not exist, or was removed while it was open."""


class FormatVersionError(ValueError):
    """Raised when a checkpoint file has a format that this version of Tapeline cannot read."""


class CheckpointContents(NamedTuple):
    """The contents of a checkpoint: its metadata, as passed to `write`, and its arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(path: str, metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint durably: after the return, a power failure does not lose the file.

    An existing file is replaced only when the new one is complete.

    Args:
      path: path of the file, in an existing directory.
      metadata: values that `json.dumps` accepts, by name.
      arrays: numeric or bool arrays, of NumPy's or TensorFlow's dtypes, by name.

    Raises:
      OSError: if the file cannot be written; no partial file remains.
    """
    described = {name: _described(array) for name, array in arrays.items()}
    manifest = {**metadata, "format": FORMAT, "arrays": described}
    with _replaced(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if array.dtype.isbuiltin != 1:  # store bfloat16, for example, as 16-bit integers
                    array = array.view(f"u{array.dtype.itemsize}")
                np.lib.format.write_array(member, array, allow_pickle=False)


def copy(source: str, target: str) -> None:
    """Copies a checkpoint file durably, as `write` writes one.

    Raises:
      OSError: if a file cannot be read or written; no partial file remains.
    """
    with open(source, "rb") as reader, _replaced(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    """Yields a temporary file, open for writing; on exit, syncs it and renames it to `path`.

    If the block raises an exception, the temporary file is removed, and `path` is unchanged.
    """
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
    """Reads a checkpoint, and checks dtype, shape and SHA-256 of each array against the manifest.

    Raises:
      MissingError: if the file does not exist, or was removed while open on a network file system.
      DamagedError: if the file cannot be read, or differs from what was written.
      FormatVersionError: if this version of Tapeline cannot read the format.
    """
    with _open(path) as archive:
        metadata = _read_manifest(path, archive)
        arrays = {}
        for name, expected in metadata.pop("arrays").items():
            with archive.open(f"{name}.npy") as member:
                stored = np.lib.format.read_array(member, allow_pickle=False)
            array = stored.view(_dtype(expected["dtype"])).reshape(expected["shape"])
            if _described(array) != expected:
                raise DamagedError(f"{name} is not what was written")
            arrays[name] = array
        return CheckpointContents(metadata, arrays)


def read_metadata(path: str) -> dict[str, Any]:
    """Returns a checkpoint's metadata with an entry "arrays": {name: {"dtype", "shape", "sha256"}}.

    Does not read the arrays.

    Raises:
      MissingError, DamagedError, FormatVersionError: as in `read`.
    """
    with _open(path) as archive:
        return _read_manifest(path, archive)


@contextlib.contextmanager
def _open(path: str) -> Iterator[zipfile.ZipFile]:
    """Yields an open checkpoint file; converts exceptions of opening it and of the block.

    An exception becomes a MissingError if the file does not exist, else a DamagedError. A
    FormatVersionError is not converted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FormatVersionError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        kind = MissingError if getattr(error, "errno", None) in _GONE else DamagedError
        message = f"cannot load checkpoint {path}: {reason or type(error).__name__}"
        raise kind(message) from error


def _read_manifest(path: str, archive: zipfile.ZipFile) -> dict[str, Any]:
    metadata = json.loads(archive.read(_MANIFEST))
    if (version := metadata.pop("format")) != FORMAT:
        raise FormatVersionError(
            f"{path} has the checkpoint format {version}, and this version of Tapeline reads "
            f"format {FORMAT}: go on with the version that wrote it, or give another --run_dir"
        )
    return metadata


def _described(array: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(content.data).hexdigest(),
    }


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow's additional dtypes; the import registers them with NumPy

        return np.dtype(getattr(ml_dtypes, name))
