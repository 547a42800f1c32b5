"""Atomic file writes, and exclusive file locks."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from typing import BinaryIO

_IN_PROCESS = itertools.count()


def replace_file(path: str, content: str | bytes, *, durable: bool = True) -> None:
    """Writes a file atomically: a reader sees the old or the new content, even after a kill.

    Several processes may replace the same file concurrently: the last one to finish wins.

    Args:
      path: path of the file.
      content: new content; text is written as UTF-8.
      durable: whether to call fsync, which is slower, so that the write is also atomic in a
        power failure.

    Raises:
      OSError: when the file cannot be written; the old file is kept.
    """
    try:
        temporary, part = _open_part(path)
        with part:
            try:
                part.truncate(0)
                part.write(content.encode() if isinstance(content, str) else content)
                part.flush()
                if durable:
                    os.fsync(part.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def _open_part(path: str) -> tuple[str, BinaryIO]:
    """Opens a temporary file beside `path` that nobody else writes; returns (its path, the file).

    The path is that of `path` with ".part" appended, so that a later write overwrites the file of a
    killed process. If that file is locked by another writer, or the file system does not support
    locks, the path is unique.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    temporary = f"{path}.part"
    descriptor = os.open(temporary, flags, 0o666)
    if not lock(descriptor, temporary):
        os.close(descriptor)
        temporary = f"{path}.{os.getpid()}-{next(_IN_PROCESS)}.part"
        descriptor = os.open(temporary, flags, 0o666)
    return temporary, os.fdopen(descriptor, "wb")


def lock(descriptor: int, path: str) -> bool:
    """Locks an open file or directory exclusively until it is closed; never waits.

    Returns:
      Whether the lock was acquired and the file is still at `path`; False if another process holds
      the lock or has moved the file, or if the file system does not support locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:  # another process holds the lock, or the file system does not support locks
        return False
