"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os


def replace_file(path: str, content: str | bytes, *, durable: bool = True) -> None:
    """Writes a file so that a reader, or a kill, meets the old one or the new one.

    Args:
      path: of the file.
      content: what it is to hold; text is written as UTF-8.
      durable: whether that is so after a power cut too, which takes the disk's time.

    Raises:
      OSError: when it cannot be written; the old one stays.
    """
    temporary = f"{path}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
