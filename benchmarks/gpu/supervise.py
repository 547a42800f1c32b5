"""Runs a command, and kills its process group as soon as standard input ends.

    python -m benchmarks.gpu.supervise COMMAND ...

The driver holds the other end of standard input. So a part does not keep the GPU when the driver is
killed, whatever the part and its own processes do. Ends as the command does: with its exit status,
or by the same signal. The process must be the leader of its group.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading


def _kill_group_at_end() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Runs the command of the arguments; returns its exit status."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_group_at_end, daemon=True).start()
    status = process.wait()
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # the thread still reads standard input
