"""Computes digests of files, to detect changed data; unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from types import TracebackType

from pipelines.storage.known_files import FileVersion, KnownFiles, file_version

_WHOLE = 1 << 30  # size in bytes of the largest data set whose bytes are all hashed
_BLOCK = 1 << 20  # bytes hashed at each position in a file of a larger data set
_POSITIONS = 256  # number of positions in such a file
_SAVE_EVERY = 30.0  # seconds after which the digests are saved while more files are hashed

# The digests that this process knows, by version of the file and kind of digest.
_known: dict[tuple[FileVersion, str], str] = {}


def examples_digest(
    ranges: Sequence[tuple[str, int, int]],
    recipe: str,
    all_bytes: bool = False,
    cache_dir: str | None = None,
) -> str:
    """Returns a digest of ranges of records in files and of `recipe`: 32 hexadecimal digits.

    Args:
      ranges: (path, first record, past-the-last record) of each file; the file's content is hashed,
        and neither the path nor the modification time.
      recipe: any text that describes how the records are decoded.
      all_bytes: whether to hash all bytes. False: of files above 1 GiB in total, only the sizes and
        at most 256 MiB of each are hashed.
      cache_dir: directory where the digests of the files are kept between runs; None: not at all.

    Raises:
      OSError: when a file cannot be read.
    """
    all_bytes = all_bytes or hashes_all_bytes([path for path, _, _ in ranges])
    digest = hashlib.sha256(f"{recipe}\n".encode())
    with FileDigests(cache_dir) as files:
        for path, first, stop in ranges:
            digest.update(f"{first} {stop} {files.digest(path, all_bytes)}\n".encode())
    return digest.hexdigest()[:32]


def hashes_all_bytes(paths: Sequence[str]) -> bool:
    """Returns whether files have at most 1 GiB in total, so that all of their bytes are hashed.

    Links count as the files that they lead to, each of them.

    Raises:
      OSError: when a file does not exist.
    """
    return sum(os.path.getsize(path) for path in set(paths)) <= _WHOLE


class FileDigests:
    """Digests of files: known to the process, kept in the cache directory, or made by reading.

    Files that are links to one file are read once. New digests are kept in the cache directory at
    the end of a `with` block, and from time to time before it.

    Args:
      cache_dir: directory where digests are kept between runs; None: they are not kept.

    Attributes:
      bytes_read: size in bytes of the files that had to be read.
    """

    def __init__(self, cache_dir: str | None) -> None:
        self._cache_dir = cache_dir
        self._folders: dict[str, KnownFiles] = {}
        self._saved = time.monotonic()
        self.bytes_read = 0

    def __enter__(self) -> FileDigests:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._save()

    def digest(self, path: str, all_bytes: bool) -> str:
        """Returns the SHA-256 of a file, or of its size and samples of it, in hexadecimal.

        Raises:
          OSError: when the file cannot be read.
        """
        version, kind = file_version(path), "all" if all_bytes else "samples"
        digest = _known.get((version, kind))
        known = None
        if digest is None and self._cache_dir is not None:
            folder, name = os.path.split(os.path.realpath(path))
            if folder not in self._folders:
                self._folders[folder] = KnownFiles(self._cache_dir, folder)
            known = self._folders[folder]
            digest = known.find(name, version, kind)
        if digest is None:
            digest = _read(path, version, kind)
            self.bytes_read += version.size
            if file_version(path) != version:  # the file changed meanwhile
                return digest
            if known is not None:
                known.add(name, version, kind, digest)
            if time.monotonic() - self._saved > _SAVE_EVERY:
                self._save()
        _known[version, kind] = digest
        return digest

    def _save(self) -> None:
        for known in self._folders.values():
            known.save()
        self._saved = time.monotonic()


def _read(path: str, version: FileVersion, kind: str) -> str:
    """Reads a file, all of it or samples, and returns the digest of this kind, in hexadecimal."""
    digest = hashlib.sha256()
    size = version.size
    if kind == "samples":
        digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        if kind == "all" or size <= _BLOCK * _POSITIONS:
            while block := file.read(4 * _BLOCK):
                digest.update(block)
        else:
            for position in range(_POSITIONS):
                file.seek(position * (size - _BLOCK) // (_POSITIONS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def representatives(paths: Sequence[str]) -> list[str]:
    """Returns for each path the first one that leads to the same file; itself if it has no file."""
    first: dict[object, str] = {}
    found = []
    for path in paths:
        key: object = path
        with contextlib.suppress(OSError):
            version = file_version(path)
            if version.inode:  # 0 where the file system has no such numbers
                key = version.device, version.inode
        found.append(first.setdefault(key, path))
    return found
