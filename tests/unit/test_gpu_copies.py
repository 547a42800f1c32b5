"""The overlap of copies with computation, in profiles that are made by hand."""

from __future__ import annotations

import pytest

from benchmarks.gpu.copies import merged, overlap

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")


def profile(**lines: list[tuple[str, int, int]]):
    """Returns a profile of a GPU, of (name, begin, end) in nanoseconds by the name of the line."""
    space = xplane_pb2.XSpace()
    space.planes.add(name="/host:CPU")
    plane = space.planes.add(name="/device:GPU:0")
    for name, events in lines.items():
        line = plane.lines.add(name=name.replace("_", "#"), timestamp_ns=5)
        for kernel, begin, end in events:
            number = len(plane.event_metadata) + 1
            plane.event_metadata[number].name = kernel
            line.events.add(
                metadata_id=number, offset_ps=1000 * begin, duration_ps=1000 * (end - begin)
            )
    return space


def test_overlap():
    found = overlap(
        profile(
            Stream_13=[("MemcpyH2D", 0, 10), ("MemcpyH2D", 20, 30), ("MemcpyD2H", 30, 40)],
            Stream_14=[("gemm", 5, 12), ("relu", 8, 15), ("Memset", 20, 30)],
            XLA_Ops=[("gemm", 0, 100)],
        )
    )
    assert found == {"copies": 2, "seconds": pytest.approx(20e-9), "overlapped": 0.25}


def test_no_copies():
    assert overlap(profile(Stream_1=[("gemm", 0, 1)])) == {
        "copies": 0,
        "seconds": 0.0,
        "overlapped": 0.0,
    }


def test_no_gpu():
    space = xplane_pb2.XSpace()
    space.planes.add(name="/host:CPU")
    assert overlap(space) is None


def test_merged():
    assert merged([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
