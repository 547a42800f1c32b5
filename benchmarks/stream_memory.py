"""How much memory a process takes that streams a data set. Linux only.

    python -m benchmarks.stream_memory DATA_DIR [BATCHES]       an epoch, unless told otherwise

Its last line is JSON: the most that it held while it streamed, in MB, of its own (RssAnon) and of
mapped files (RssFile), which are page cache that the system takes back as it needs.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

EVERY = 0.02  # seconds between two looks


def held() -> dict[str, float]:
    """MB that this process holds, by kind."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) / 1024
    return found


class Watch(threading.Thread):
    """Looks every now and then, and keeps the most of each."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = held()
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks until ended."""
        while not self._ended.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Once."""
        self.most = {name: max(self.most[name], now) for name, now in held().items()}

    def end(self) -> dict[str, float]:
        """The most of each."""
        self._ended.set()
        self.join()
        self.look()
        return self.most


def main() -> None:
    """Streams."""
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
