"""Caches decoded examples and record indices on disk, for reuse by later runs.

An entry is validated by its digest before it is used: the cache never changes a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from pipelines.fingerprint import examples_digest

_VERSION = 1
_ENTRIES = (".decoded", ".index")
_BUDGET = 8 << 30  # maximum bytes of all entries; the least recently used are deleted first


def default_dir() -> str:
    """Returns the default directory of the cache: $XDG_CACHE_HOME/tapeline or ~/.cache/tapeline."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "tapeline")


def key(ranges: Sequence[tuple[str, int, int]], recipe: str) -> str:
    """Returns the cache key of decoded examples: `examples_digest`, of all bytes of the files."""
    return examples_digest(ranges, f"{_VERSION}\n{recipe}", all_bytes=True)


def load(cache_dir: str, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Loads decoded images [n, H, W, C] and labels int32 [n] by key; None if missing or invalid."""
    path = os.path.join(cache_dir, f"{name}.decoded")
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
            content = np.fromfile(file, np.uint8)
        shape = tuple(header["shape"])
        dtype = np.dtype(header.get("dtype", "uint8"))
        image_bytes = int(np.prod(shape)) * dtype.itemsize
        digest = hashlib.sha256(content.data).hexdigest()
        if content.size != image_bytes + 4 * shape[0] or digest != header["sha256"]:
            return None
        images = content[:image_bytes].view(dtype).reshape(shape)
        labels = content[image_bytes:].copy().view("<i4").astype(np.int32)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    used(path)
    return images, labels


def stored_digest(cache_dir: str, name: str) -> str | None:
    """Returns the SHA-256 in an entry's header, without checking it; None if it cannot be read."""
    try:
        with open(os.path.join(cache_dir, f"{name}.decoded"), "rb") as file:
            return str(json.loads(file.readline())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def content_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Returns the SHA-256 of decoded images and labels, in hexadecimal."""
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, "<i4").tobytes())
    return digest.hexdigest()


def store(cache_dir: str, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Caches decoded images [n, H, W, C] and labels int32 [n] atomically; ignores OSError."""
    images = np.ascontiguousarray(images)
    digest = content_digest(images, labels)
    header = {"shape": images.shape, "dtype": images.dtype.name, "sha256": digest}
    with contextlib.suppress(OSError), written(os.path.join(cache_dir, f"{name}.decoded")) as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(images.data)
        file.write(np.ascontiguousarray(labels, "<i4").tobytes())


@contextlib.contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """Yields a binary file, then renames it to `path` and prunes the cache; may raise OSError."""
    cache_dir = os.path.dirname(path)
    os.makedirs(cache_dir, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=cache_dir, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _prune(cache_dir)


def used(path: str) -> None:
    """Marks a cache entry as the most recently used, by its modification time."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _prune(cache_dir: str) -> None:
    entries = [entry for entry in os.scandir(cache_dir) if entry.name.endswith(_ENTRIES)]
    entries.sort(key=lambda entry: entry.stat().st_mtime)
    excess = sum(entry.stat().st_size for entry in entries) - _BUDGET
    for entry in entries[:-1]:
        if excess <= 0:
            break
        excess -= entry.stat().st_size
        os.unlink(entry.path)
