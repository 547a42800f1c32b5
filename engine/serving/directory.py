"""Replaces a directory as a whole: a new directory is written beside it, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator

from engine.runtime.atomic_files import lock


@contextlib.contextmanager
def temporary_directory(folder: str) -> Iterator[str]:
    """Yields the path of an empty directory beside `folder`; removes the directory on an error.

    The path is `folder`.part, locked for this process and emptied, so that files of a killed
    process are removed. If it cannot be locked, because another process uses it, the path is
    `folder`.PID.part.

    Raises:
      OSError: if the directory cannot be created or emptied.
    """
    temporary = f"{folder}.part"
    while True:
        os.makedirs(temporary, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has moved it
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            break
    try:
        if not lock(descriptor, temporary):
            temporary = f"{folder}.{os.getpid()}.part"
            os.makedirs(temporary, exist_ok=True)
        for entry in os.scandir(temporary):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def publish(temporary: str, folder: str) -> None:
    """Renames the directory `temporary` to `folder`, then deletes the previous `folder`.

    For a moment between two renames, there is no `folder`. Also deletes previous versions of
    `folder` that other processes have left.

    Raises:
      OSError: if a directory cannot be renamed; the previous `folder` is then kept.
    """
    before = f"{folder}.{os.getpid()}.before"
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, before)
        try:
            os.rename(temporary, folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with contextlib.suppress(OSError):
                    os.rename(before, folder)  # the previous one stays
                raise
            # Another process has moved its export there in the meantime: it is deleted, too.
            shutil.rmtree(before, ignore_errors=True)
    for old in glob.glob(f"{glob.escape(folder)}.*before"):
        shutil.rmtree(old, ignore_errors=True)
