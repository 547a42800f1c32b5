"""Computes digests of files, to detect changed data."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence

_WHOLE = 1 << 30  # size in bytes of the largest data set whose bytes are all hashed
_BLOCK = 1 << 20  # bytes hashed at each position in a file of a larger data set
_POSITIONS = 256  # number of positions in such a file


def examples_digest(
    ranges: Sequence[tuple[str, int, int]], recipe: str, all_bytes: bool = False
) -> str:
    """Returns a digest of ranges of records in files and of `recipe`: 32 hexadecimal digits.

    Args:
      ranges: (path, first record, past-the-last record) of each file; the file's content is hashed,
        and neither the path nor the modification time.
      recipe: any text that describes how the records are decoded.
      all_bytes: whether to hash all bytes. False: of files above 1 GiB in total, only the sizes and
        at most 256 MiB of each are hashed.

    Raises:
      OSError: when a file cannot be read.
    """
    stats = {path: os.stat(path) for path, _, _ in ranges}
    all_bytes = all_bytes or sum(stat.st_size for stat in stats.values()) <= _WHOLE
    digest = hashlib.sha256(f"{recipe}\n".encode())
    for path, first, stop in ranges:
        file_digest = _digest(path, stats[path].st_size, stats[path].st_mtime_ns, all_bytes)
        digest.update(f"{first} {stop} {file_digest}\n".encode())
    return digest.hexdigest()[:32]


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified: int, all_bytes: bool) -> str:
    """Returns the SHA-256 of a file, or of its size and samples of it, in hexadecimal.

    `modified` is only a part of the key of the `lru_cache`.
    """
    del modified
    digest = hashlib.sha256()
    if not all_bytes:
        digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        if all_bytes or size <= _BLOCK * _POSITIONS:
            while block := file.read(4 * _BLOCK):
                digest.update(block)
        else:
            for position in range(_POSITIONS):
                file.seek(position * (size - _BLOCK) // (_POSITIONS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
