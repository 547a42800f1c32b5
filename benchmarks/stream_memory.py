"""Measures the memory of a process that streams a data set, on Linux only.

    python -m benchmarks.stream_memory DATA_DIR [BATCHES [DATASET [CACHE_DIR]]]

By default, streams an epoch of MNIST.

The last line of the output is JSON: the resident memory in MiB, before streaming, its peak while
streaming ("most"), and after; and the number of examples of the split and of those streamed. Memory
is anonymous (RssAnon) or of mapped files (RssFile), page cache that the system reclaims as needed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

EVERY = 0.02  # seconds between two samples


def held() -> dict[str, float]:
    """Returns this process's resident memory in MiB, by the names "RssAnon" and "RssFile"."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) / 1024
    return found


class Watch(threading.Thread):
    """A thread that samples the process's memory every 20 ms and keeps the maxima.

    Attributes:
      most: the largest sample in MiB, by the names of `held`.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = held()
        self._ended = threading.Event()

    def run(self) -> None:
        """Samples the memory until `end` is called."""
        while not self._ended.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Samples the memory once and updates `most`."""
        self.most = {name: max(self.most[name], now) for name, now in held().items()}

    def end(self) -> dict[str, float]:
        """Stops the thread, samples the memory once more and returns `most`."""
        self._ended.set()
        self.join()
        self.look()
        return self.most


def main() -> None:
    """Streams the batches and prints as JSON the numbers of examples and the memory."""
    from benchmarks.engine_stream import Consumer

    data_dir, *rest = sys.argv[1:]
    batches, dataset, cache_dir = (*rest, *("", "mnist", "")[len(rest) :])
    before, watch = held(), Watch()
    watch.start()
    consumer = Consumer(data_dir, 0, dataset, cache_dir)
    feed = consumer.feed
    consumer.take(int(batches or feed.steps_per_epoch))
    found = {"before": before, "most": watch.end(), "after": held()}
    print(json.dumps({"split": feed.examples, "examples": consumer.seen["examples"], **found}))
    feed.close()


if __name__ == "__main__":
    main()
