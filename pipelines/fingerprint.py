"""Computes digests of files, to detect changed data."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence

_WHOLE = 1 << 30  # size in bytes of the largest data set whose bytes are all hashed
_BLOCK = 1 << 20  # bytes hashed at each position in a file of a larger data set
_PLACES = 256  # number of positions in such a file


def digest(path: str, *, whole: bool = True) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal.

    Args:
      path: path of the file.
      whole: whether all bytes are hashed; else the size and at most 256 blocks of 1 MiB, spread
        evenly over the file.
    """
    found = os.stat(path)
    return _digest(path, found.st_size, found.st_mtime_ns, whole)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified: int, whole: bool) -> str:
    """Computes `digest`; the modification time is only part of the `lru_cache` key."""
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

    It does not depend on the location of the files. If they exceed 1 GiB in total, only
    the size and at most 256 MiB of each file are hashed.

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
