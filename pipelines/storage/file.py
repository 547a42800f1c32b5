"""Reads the bytes of a file at any position."""

from __future__ import annotations

import os


class RandomAccessFile:
    """A file kept open for reading, not memory-mapped: mapped pages count as memory of the process.

    Args:
      file: path of the file; or the descriptor of an open file, which the object closes.

    Raises:
      OSError: when the file cannot be opened.
    """

    def __init__(self, file: str | int) -> None:
        self._descriptor = (
            os.open(file, os.O_RDONLY | os.O_CLOEXEC) if isinstance(file, str) else file
        )

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Returns `length` bytes from byte `start` on, or fewer at the end of the file.

        Raises:
          OSError: when the file cannot be read.
        """
        return os.pread(self._descriptor, length, start)
