"""Digests of files, to detect changed data."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence

_WHOLE = 1 << 30  # bytes of the largest data set that is read completely
_BLOCK = 1 << 20  # bytes read at each position in a file of a larger data set
_PLACES = 256  # positions in such a file


def digest(path: str, *, whole: bool = True) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal.

    Args:
      path: path of the file.
      whole: whether all bytes are hashed; else the size and blocks spread evenly over the file.
    """
    found = os.stat(path)
    return _digest(path, found.st_size, found.st_mtime_ns, whole)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified: int, whole: bool) -> str:
    """Computes `digest`; size and modification time are only part of the cache key."""
    del modified
    found = hashlib.sha256()
    if not whole:
        found.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        if whole or size <= _BLOCK * _PLACES:
            while block := file.read(4 * _BLOCK):
                found.update(block)
        else:
            for place in range(_PLACES):
                file.seek(place * (size - _BLOCK) // (_PLACES - 1))
                found.update(file.read(_BLOCK))
    return found.hexdigest()


def examples_digest(ranges: Sequence[tuple[str, int, int]], recipe: str) -> str:
    """Returns a digest that identifies a set of examples: 32 hexadecimal digits.

    It does not depend on the location of the files. If they are larger than 1 GiB together, the
    size and 256 MiB of each file are hashed.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in order.
      recipe: description of how the examples are decoded.
    """
    paths = {path for path, _, _ in ranges}
    whole = sum(map(os.path.getsize, paths)) <= _WHOLE
    found = hashlib.sha256(f"{recipe}\n".encode())
    for path, first, stop in ranges:
        found.update(f"{first} {stop} {digest(path, whole=whole)}\n".encode())
    return found.hexdigest()[:32]
