"""A lock that allows only one process at a time to write to a run directory."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time


class RunLock:
    """Context manager that holds the exclusive lock of a run directory; a kill also releases it.

    Entering acquires the lock if the directory exists; if the directory is created later, call
    `take`.

    Args:
      run_dir: run directory.
      taken: whether entering acquires the lock; of several workers, True on one only.

    Raises:
      ValueError, OSError: on entering, as `take`.
    """

    def __init__(self, run_dir: str, taken: bool = True) -> None:
        self._run_dir, self._taken = run_dir, taken
        self._path = os.path.join(run_dir, "lock")
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        if self._taken and os.path.isdir(self._run_dir):
            self.take()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            os.unlink(self._path)  # before the release: no other process holds this file
            os.close(self._file)

    def take(self) -> None:
        """Acquires the lock, unless this object holds it already; the run directory must exist.

        Raises:
          ValueError: when another process holds it; the message names that process.
          OSError: when the file of the lock cannot be opened or written.
        """
        if self._file is not None:
            return
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                os.close(file)
                raise ValueError(
                    f"--run_dir={self._run_dir} is in use by {holder}: wait for it, or give another"
                ) from None
            # Between opening and locking, the holder may have ended and deleted its file.
            if os.path.exists(self._path) and os.path.samestat(os.stat(self._path), os.fstat(file)):
                self._file = file
            else:
                os.close(file)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
        os.ftruncate(self._file, 0)
        os.write(self._file, holder.encode())


def in_use(run_dir: str) -> bool:
    """Returns whether a process seems to hold the lock of a run directory; does not take it.

    A process of this host is looked up by the number that the file of the lock names. One of
    another host counts if it has written clock.json in the last two minutes.
    """
    try:
        with open(os.path.join(run_dir, "lock"), encoding="utf-8") as file:
            named = re.match(r"process (\d+) on (\S+)", file.read())
    except OSError:
        return False
    if named is None:  # it is being taken
        return True
    if named[2] == socket.gethostname():
        try:
            os.kill(int(named[1]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
    try:
        return time.time() - os.stat(os.path.join(run_dir, "clock.json")).st_mtime < 120
    except OSError:
        return False
