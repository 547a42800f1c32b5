"""Measures the memory of a process that streams MNIST. Linux only.

    python -m benchmarks.stream_memory DATA_DIR [BATCHES]       an epoch by default

The last line of the output is JSON: the peak memory while streaming, in MB, of anonymous memory
(RssAnon) and of mapped files (RssFile), which are page cache that the system reclaims as needed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

EVERY = 0.02  # seconds between two samples


def held() -> dict[str, float]:
    """Returns this process's resident memory in MB, by the names "RssAnon" and "RssFile"."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) / 1024
    return found


class Watch(threading.Thread):
    """A thread that samples the process's memory every 20 ms and keeps the maxima."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = held()
        self._ended = threading.Event()

    def run(self) -> None:
        """Samples the memory until `end` is called."""
        while not self._ended.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Samples the memory once."""
        self.most = {name: max(self.most[name], now) for name, now in held().items()}

    def end(self) -> dict[str, float]:
        """Stops the thread and returns the maxima, by the names of `held`."""
        self._ended.set()
        self.join()
        self.look()
        return self.most


def main() -> None:
    """Streams the batches and prints the memory before, at most during, and after streaming."""
    from benchmarks.engine_stream import Consumer

    data_dir, *batches = sys.argv[1:]
    before, watch = held(), Watch()
    watch.start()
    consumer = Consumer(data_dir, 0)
    feed = consumer.feed
    consumer.take(int(batches[0]) if batches else feed.steps_per_epoch)
    found = {"before": before, "most": watch.end(), "after": held()}
    print(json.dumps({"split": feed.examples, "examples": consumer.seen["examples"], **found}))
    feed.close()


if __name__ == "__main__":
    main()
