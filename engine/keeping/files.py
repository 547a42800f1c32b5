"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from typing import BinaryIO

_IN_PROCESS = itertools.count()


def replace_file(path: str, content: str | bytes, *, durable: bool = True) -> None:
    """Writes a file so that a reader, or a kill, meets the old one or the new one.

    Several processes may replace the same file at once: the last one to finish counts.

    Args:
      path: of the file.
      content: what it is to hold; text is written as UTF-8.
      durable: whether that is so after a power cut too, which takes the disk's time.

    Raises:
      OSError: when it cannot be written; the old one stays.
    """
    try:
        with _part_of(path) as (temporary, file):
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _part_of(path: str) -> Iterator[tuple[str, BinaryIO]]:
    """An empty file beside a path that no other process writes, by name; taken away on an error.

    It has one name as long as nobody else has it, so that what a kill leaves is written over.
    """
    temporary = f"{path}.part"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    if not lock(descriptor, temporary):
        os.close(descriptor)
        temporary = f"{path}.{os.getpid()}-{next(_IN_PROCESS)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        try:
            file.truncate(0)
            yield temporary, file
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def lock(descriptor: int, path: str) -> bool:
    """Locks what is open for this descriptor alone, until it is closed; never waits.

    Args:
      descriptor: of an open file or directory.
      path: the name that it was opened by.

    Returns:
      Whether it is locked and still has that name; another process may have moved it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:  # another process has it, or the file system has no locks
        return False
