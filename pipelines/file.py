"""Bytes of a file by their place."""

from __future__ import annotations

import os


class File:
    """A file that is open for as long as this is.

    It is not mapped: what is looked at of a mapped file counts as this process's memory.

    Args:
      path: of it.

    Raises:
      OSError: when it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, or fewer where it ends."""
        return os.pread(self._descriptor, length, start)
