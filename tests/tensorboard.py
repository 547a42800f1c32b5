"""A TensorBoard process, for tests of the data that TensorBoard displays."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.command import HANG, Command, Run


class TensorBoard:
    """A client of a running TensorBoard.

    Args:
      address: base URL, `http://127.0.0.1:PORT/`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, route: str, **query: str) -> Any:
        """Returns the decoded JSON answer of a route below `data/`."""
        url = f"{self.address}data/{route}?{urllib.parse.urlencode(query)}"
        with self._direct.open(url, timeout=HANG) as answer:
            return json.load(answer)

    def await_points(self, run: Run) -> None:
        """Waits, for at most 30 seconds, until TensorBoard has loaded every metric row of a run."""
        end = time.monotonic() + 30
        for split in ("train", "validation", "test"):
            loaded = 0
            while loaded < len(run.rows(split)) and time.monotonic() < end:
                time.sleep(0.05)
                # The tag does not exist before anything is loaded.
                with contextlib.suppress(urllib.error.HTTPError):
                    loaded = len(self.get("plugin/scalars/scalars", run=split, tag="loss"))


@contextlib.contextmanager
def tensorboard(command: Command, logdir: Path, log: Path) -> Iterator[TensorBoard]:
    """Yields a TensorBoard of a log directory; terminates the process at the end of the block.

    Args:
      command: provides the environment variables.
      logdir: the log directory.
      log: file for the process's output.
    """
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    # Port 0 selects a free port. The plain loader reads everything before the first answer; the
    # fast loader is a second process, which would have to be waited for and terminated.
    line += ["--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    with (
        open(log, "w") as file,
        subprocess.Popen(line, env=command.environment, stdout=file, stderr=file) as process,
    ):
        try:
            yield TensorBoard(_address(process, log))
        finally:
            process.terminate()
            try:
                process.wait(10)
            finally:
                process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Waits until TensorBoard has written its URL to the log; returns the URL."""
    end = time.monotonic() + HANG
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found[0]
