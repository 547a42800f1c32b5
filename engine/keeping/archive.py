"""A checkpoint on disk: one file of arrays by name, whole or not there, that proves itself.

It is an uncompressed `.npz`, so `numpy.load(path)` opens it anywhere, with one member more:
`manifest.json`, which says what the checkpoint is and has a SHA-256 of each array. It is written
beside its place and moved there once the disk has it, so that a kill or a full disk leaves nothing
by its name; and nothing of it is believed on reading that the manifest does not prove.
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
PART = ".part"  # what is being written ends so

_MANIFEST = "manifest.json"
_MEMBER = ".npy"
_GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: taken away on a network file system while open


class DamagedError(OSError):
    """A file that is not what was written, or that is not there."""


class MissingError(DamagedError):
    """A file that is not there, or no longer."""


class OtherFormatError(ValueError):
    """A file that another version of Tapeline wrote, and that this one cannot read."""


@dataclass(frozen=True)
class Archive:
    """What a checkpoint holds.

    facts: what it is, as it was given to `write`.
    arrays: by name.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(path: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint; when it returns, a power cut does not lose it.

    Args:
      path: where to; what is there already stays until this is whole.
      facts: anything that JSON holds.
      arrays: by name, of any dtype that NumPy or TensorFlow has.

    Raises:
      OSError: when it cannot be written; nothing is left of it then.
    """
    described = {name: _described(array) for name, array in arrays.items()}
    manifest = {"format": FORMAT, **facts, "arrays": described}
    with _whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        for name, array in arrays.items():
            with archive.open(name + _MEMBER, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _plain(array), allow_pickle=False)


def copy(path: str, to: str) -> None:
    """Writes a checkpoint that is there under another name too, as `write` would.

    Raises:
      OSError: when it cannot be read or written; nothing is left by that name then.
    """
    with open(path, "rb") as file, _whole(to) as other:
        shutil.copyfileobj(file, other, 1 << 20)


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file to write to, which has the name once the disk has all of it."""
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
    """What was moved within a directory, or taken out of it, is so after a power cut too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str) -> Archive:
    """Reads a checkpoint and checks all of it.

    It is opened once: taken away meanwhile it is read to its end nevertheless.

    Raises:
      MissingError: when it is not there.
      DamagedError: when it is not what was written.
      OtherFormatError: when another version of Tapeline wrote it.
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
        return Archive(facts, arrays)


def read_facts(path: str) -> dict[str, Any]:
    """What a checkpoint is, and {"arrays": {name: {"dtype", "shape", "sha256"}}}, unproved.

    Raises:
      DamagedError, OtherFormatError: as `read`.
    """
    with _opened(path) as archive:
        return _facts(path, archive)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """The file; whatever reading it raises, from here or from a reader of torn files, is damage."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OtherFormatError:
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
        raise OtherFormatError(
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
    """As NumPy alone can read it: what it has no name for, bfloat16 say, as bytes of that width."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow's own; NumPy knows them once it is imported

        return np.dtype(getattr(ml_dtypes, name))
