"""Runs a command, and kills its process group as soon as standard input ends.

    python -m benchmarks.gpu.supervise COMMAND ...

The driver holds the other end of standard input. So a part does not keep the GPU when the driver is
killed, whatever the part and its own processes do. Ends as the command does: with its exit status,
or by the same signal. Refuses to start where it is not the leader of its process group.
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
    """Runs the command of the arguments; returns its exit status, 2 if it was not started."""
    if os.getpgrp() != os.getpid():
        print("error: start it as the leader of a process group of its own", file=sys.stderr)
        return 2
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_group_at_end, daemon=True).start()
    status = process.wait()
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    ended = main()
    sys.stderr.flush()
    os._exit(ended)  # the thread still reads standard input
