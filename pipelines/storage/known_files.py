"""Digests of the files of a folder, kept in the cache directory, so that they are read only once.

A file is known by its path without links, its size, and its times of modification and of change
(mtime and ctime, in nanoseconds). The time of change is that of the operating system's clock: no
program can set it, so that a file whose contents were replaced, and whose time of modification was
set back, is found too. A file that was only touched, copied or moved has to be read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import Any, NamedTuple

from pipelines.storage import cache

_VERSION = 1
# A file that was changed this short a time ago could change again without another time of change.
_SETTLED = 2_000_000_000  # in nanoseconds


class FileVersion(NamedTuple):
    """What tells a file, and a state of its contents, from others, as `os.stat` reports it.

    Links to one file have equal versions.
    """

    device: int
    inode: int
    size: int  # in bytes
    modified: int  # mtime, in nanoseconds
    changed: int  # ctime, in nanoseconds


def file_version(path: str) -> FileVersion:
    """Returns the version of a file, of the target if it is a link.

    Raises:
      OSError: when there is no such file.
    """
    stat = os.stat(path)
    times = stat.st_mtime_ns, stat.st_ctime_ns
    return FileVersion(stat.st_dev, stat.st_ino, stat.st_size, *times)


class KnownFiles:
    """The digests of the files of one folder that are in the cache directory.

    Args:
      cache_dir: directory of the cache.
      folder: path of the folder, without links.
    """

    def __init__(self, cache_dir: str, folder: str) -> None:
        name = hashlib.sha256(folder.encode()).hexdigest()[:32]
        self._path = os.path.join(cache_dir, f"{name}.files")
        self._files = self._stored()
        self._added: dict[str, Any] = {}

    def find(self, name: str, version: FileVersion, kind: str) -> str | None:
        """Returns the digest, of a kind, of a file of the folder; None if it is not known."""
        state, digests = self._files.get(name, (None, {}))
        return digests.get(kind) if state == _state(version) else None

    def add(self, name: str, version: FileVersion, kind: str, digest: str) -> None:
        """Adds a digest, for `save` to write; a file that was changed just now is left out."""
        if abs(time.time_ns() - max(version.modified, version.changed)) < _SETTLED:
            return
        state, digests = self._files.get(name, (None, {}))
        same = digests if state == _state(version) else {}
        self._files[name] = self._added[name] = [_state(version), {**same, kind: digest}]

    def save(self) -> None:
        """Writes the added digests atomically, beside those that are stored; ignores OSError.

        Of two processes that write at the same time one may lose its additions: those files are
        read again by a later run.
        """
        if not self._added:
            return
        content = json.dumps({"version": _VERSION, "files": self._stored() | self._added}).encode()
        with contextlib.suppress(OSError), cache.written(self._path) as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        self._added = {}

    def _stored(self) -> dict[str, Any]:
        """Returns the stored entries by the name of the file; {} if missing or damaged."""
        try:
            with open(self._path, "rb") as file:
                digest, _, content = file.read().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                return {}
            stored = json.loads(content)
            return stored["files"] if stored["version"] == _VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _state(version: FileVersion) -> list[int]:
    """Returns the part of a version that is stored.

    Numbers of devices and inodes are left out: some file systems assign others at each mount.
    """
    return [version.size, version.modified, version.changed]
