"""Files that are whole or not there."""

from __future__ import annotations

import os


def replace_file(path: str, text: str) -> None:
    """Writes a text file so that a reader, or a kill, meets the old one or the new one."""
    temporary = f"{path}.part"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
