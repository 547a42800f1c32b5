"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os


def replace_file(path: str, text: str, *, durable: bool = True) -> None:
    """Writes a text file so that a reader, or a kill, meets the old one or the new one.

    Args:
      path: of the file.
      text: what it is to hold.
      durable: whether that is so after a power cut too, which takes the disk's time.

    Raises:
      OSError: when it cannot be written; the old one stays.
    """
    temporary = f"{path}.part"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
