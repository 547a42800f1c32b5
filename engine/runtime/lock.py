"""A lock that allows one process to write to a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from types import TracebackType


class RunLock:
    """Locks a run directory for one process, while entered.

    The operating system releases the lock when its holder ends, however it ends, so no stale lock
    remains.

    Args:
      run_dir: run directory; locked on entering if it exists, else by `take`, once it exists.
      taken: whether entering locks at all; one of several workers holds the lock for all.
    """

    def __init__(self, run_dir: str, taken: bool = True) -> None:
        self._run_dir, self._taken = run_dir, taken
        self._path = os.path.join(run_dir, "lock")
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        if self._taken and os.path.isdir(self._run_dir):
            self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.unlink(self._path)  # before it is released: no other process holds this file
            os.close(self._file)

    def take(self) -> None:
        """Takes the lock, unless this process holds it already.

        Raises:
          ValueError: when another process holds it; names that process.
        """
        if self._file is not None:
            return
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
        os.ftruncate(self._file, 0)
        os.write(
            self._file, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode()
        )
