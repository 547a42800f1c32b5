"""Caches decoded examples, record indices and compiled programs on disk, for reuse by later runs.

They are validated by their digest before they are used, so the cache never changes a result.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.nests import Nest, Spec
from pipelines.splits import DataSplit

_VERSION = 2
_ENTRIES = (".decoded", ".index", ".program")
_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{32}\.part$")  # names of the files that `written` writes
_ABANDONED = 3600  # seconds after which such a file without a lock is deleted
_BUDGET = 8 << 30  # maximum bytes of all entries; the least recently used are deleted first


def default_dir() -> str:
    """Returns the default directory of the cache: $XDG_CACHE_HOME/tapeline or ~/.cache/tapeline."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "tapeline")


def key(split: DataSplit, recipe: str) -> str:
    """Returns the cache key of a split's decoded examples: a hash of stored bytes and `recipe`.

    `recipe` is any text that describes the decoding.

    Raises:
      ValueError, OSError: as `DataSplit.digest`.
    """
    text = f"{_VERSION}\n{recipe}\n{split.digest(all_bytes=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load(cache_dir: str, name: str, spec: Spec) -> Nest | None:
    """Loads decoded examples by key: a nest of arrays [n, ...]; None if missing or invalid.

    `spec` is the nest of the specs of an example: (inputs, targets). Marks the entry as used.
    """
    path = os.path.join(cache_dir, f"{name}.decoded")
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
            examples = int(header["examples"])
            # One allocation: each array is a view, as far as its dtype's alignment allows.
            content = np.fromfile(file, np.uint8)
        if header["spec"] != nests.signature(spec) or examples < 0:
            return None
        if content.size != examples * nests.example_bytes(spec):
            return None
        arrays, start = [], 0
        for leaf in tf.nest.flatten(spec):
            size = examples * nests.example_bytes(leaf)
            dtype = np.dtype(leaf.dtype.as_numpy_dtype)
            part = content[start : start + size]
            part = part if start % dtype.itemsize == 0 else part.copy()
            arrays.append(part.view(dtype).reshape((examples, *leaf.shape)))
            start += size
        decoded = tf.nest.pack_sequence_as(spec, arrays)
        if content_digest(decoded) != header["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    used(path)
    return decoded


def stored_digest(cache_dir: str, name: str) -> str | None:
    """Returns the SHA-256 in an entry's header, without checking it; None if it cannot be read."""
    try:
        with open(os.path.join(cache_dir, f"{name}.decoded"), "rb") as file:
            return str(json.loads(file.readline())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def content_digest(decoded: Nest) -> str:
    """Returns the SHA-256 of decoded examples, a nest of arrays [n, ...], in hexadecimal.

    Images with int32 labels have the digest of only their bytes, as in runs of version 0.4.0.
    """
    spec = nests.spec_of(decoded)
    known = re.fullmatch(r"0:\[\d+, \d+, \d+\]:(uint8|float32);1:\[\]:int32", nests.signature(spec))
    digest = hashlib.sha256(b"" if known else nests.signature(spec).encode())
    for leaf in tf.nest.flatten(decoded):
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def store(cache_dir: str, name: str, decoded: Nest) -> None:
    """Caches decoded examples, a nest of arrays [n, ...], atomically; ignores OSError."""
    leaves = list(map(np.ascontiguousarray, tf.nest.flatten(decoded)))
    header = {
        "examples": len(leaves[0]),
        "spec": nests.signature(nests.spec_of(decoded)),
        "sha256": content_digest(decoded),
    }
    with contextlib.suppress(OSError), written(os.path.join(cache_dir, f"{name}.decoded")) as file:
        file.write(json.dumps(header).encode() + b"\n")
        for leaf in leaves:
            file.write(leaf.reshape(-1).view(np.uint8).data)


def load_programs(cache_dir: str, name: str) -> Iterator[tuple[str, bytes]]:
    """Yields the file name and the bytes of each compiled program with the key `name`.

    Marks the programs as used. Leaves out those that are damaged or cannot be read.
    """
    for path in sorted(Path(cache_dir).glob(f"{name}-*.program")):
        try:
            header, _, content = path.read_bytes().partition(b"\n")
            about = json.loads(header)
            if hashlib.sha256(content).hexdigest() == about["sha256"]:
                used(str(path))
                yield os.path.basename(about["file"]), content
        except (OSError, ValueError, KeyError, TypeError):
            continue


def store_program(cache_dir: str, name: str, file_name: str, content: bytes) -> None:
    """Caches a compiled program under the key `name`, atomically.

    Raises:
      OSError: when a file cannot be written.
    """
    header = {"file": file_name, "sha256": hashlib.sha256(content).hexdigest()}
    number = hashlib.sha256(file_name.encode()).hexdigest()[:16]
    with written(os.path.join(cache_dir, f"{name}-{number}.program")) as file:
        file.write(json.dumps(header).encode() + b"\n" + content)


@contextlib.contextmanager
def written(path: str, pruned: bool = True) -> Iterator[BinaryIO]:
    """Yields a binary file that replaces the file `path` when the `with` block ends.

    If the block raises an error, `path` is not changed. The file has the permissions of any new
    file, which the umask determines. Creates the directory of `path`, the cache, deletes what
    killed processes left there, and, with `pruned`, prunes it at the end.

    Raises:
      OSError: when a file cannot be written or deleted.
    """
    cache_dir = os.path.dirname(path)
    os.makedirs(cache_dir, exist_ok=True)
    _delete_abandoned(cache_dir)
    # Not by `tempfile`, whose files only their owner can read: several users may share a cache.
    temporary = f"{path}.{os.getpid()}-{uuid.uuid4().hex}.part"
    try:
        with open(temporary, "xb") as file:
            with contextlib.suppress(OSError):  # the file system does not support locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if pruned:
        prune(cache_dir)


def _delete_abandoned(directory: str) -> None:
    """Deletes the temporary files of `written` whose process was killed; ignores OSError.

    Such a file has no lock, and was not changed for an hour: a process of another machine may write
    it, and the file system may not support locks.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if not _TEMPORARY.search(entry.name):
                continue
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED:
                    os.unlink(entry.path)


def used(path: str) -> None:
    """Marks a cache entry as the most recently used, by its modification time."""
    with contextlib.suppress(OSError):
        os.utime(path)


def prune(cache_dir: str) -> None:
    """Deletes the least recently used entries of the cache above 8 GiB, but not the newest one.

    Raises:
      OSError: when the directory cannot be read, or an entry cannot be deleted.
    """
    entries = []
    for entry in os.scandir(cache_dir):
        # Another process may delete entries at the same time.
        with contextlib.suppress(FileNotFoundError):
            if entry.name.endswith(_ENTRIES):
                stat = entry.stat()
                entries.append((stat.st_mtime, stat.st_size, entry.path))
    entries.sort(key=lambda entry: entry[0])
    excess = sum(size for _, size, _ in entries) - _BUDGET
    for _, size, path in entries[:-1]:
        if excess <= 0:
            break
        excess -= size
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
