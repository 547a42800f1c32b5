"""Measures, in a profile of TensorFlow, how much copies to the GPU overlap with computation."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

Interval = tuple[int, int]  # begin and end, in picoseconds


def profiled(tf: Any, work: Callable[[], None]) -> dict[str, float] | None:
    """Profiles some work; returns the result of `overlap` for its copies, None without a GPU.

    Args:
      tf: the module of TensorFlow.
      work: takes some steps and waits for their end.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as place:
        with tf.profiler.experimental.Profile(place):
            work()
        space = xplane_pb2.XSpace()
        for path in glob.glob(f"{place}/**/*.xplane.pb", recursive=True):
            with open(path, "rb") as file:
                space.MergeFromString(file.read())
    return overlap(space)


def overlap(space: Any) -> dict[str, float] | None:
    """Returns the copies from the host to the first GPU in a profile, None without a GPU.

    Args:
      space: the profile, an XSpace.

    Returns:
      "copies", their number; "seconds", their duration; "overlapped", the fraction of this duration
      in which the GPU also computes.
    """
    planes = [plane for plane in space.planes if plane.name.startswith("/device:GPU:0")]
    if not planes:
        return None
    copied: list[Interval] = []
    computed: list[Interval] = []
    for plane in planes:
        for line in plane.lines:
            if not line.name.startswith("Stream"):  # other lines repeat the kernels, by operation
                continue
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                begin = line.timestamp_ns * 1000 + event.offset_ps
                interval = begin, begin + event.duration_ps
                if name.startswith("MemcpyH2D"):
                    copied.append(interval)
                elif not name.startswith(("Memcpy", "Memset")):
                    computed.append(interval)
    busy = merged(computed)
    total = sum(end - begin for begin, end in copied)
    shared = sum(_shared(each, busy) for each in copied)
    return {
        "copies": len(copied),
        "seconds": total / 1e12,
        "overlapped": shared / total if total else 0.0,
    }


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Returns the union of intervals, as disjoint intervals in order."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def _shared(interval: Interval, disjoint: list[Interval]) -> int:
    """Returns the length that an interval shares with disjoint intervals."""
    begin, end = interval
    return sum(max(0, min(end, b) - max(begin, a)) for a, b in disjoint)
