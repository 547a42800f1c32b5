"""Writes TensorBoard event files, and removes their events after a step."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import summary_pb2, tensor_pb2, types_pb2
from tensorflow.core.util import event_pb2

_FILE_NUMBERS = itertools.count()
_SCALAR = summary_pb2.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class=summary_pb2.DATA_CLASS_SCALAR
)


class EventFile(tf.io.TFRecordWriter):
    """Writer of a new TensorBoard event file in a directory, which is created if missing.

    The names of files sort by the time of their creation, to the nanosecond: TensorBoard reads them
    in this order, and a resumed run may create its file in the same second as the killed one.
    """

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        number = next(_FILE_NUMBERS)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        created = f"{seconds:010d}.{nanoseconds:09d}"
        name = f"{created}.{socket.gethostname()}.{os.getpid()}.{number}"
        super().__init__(os.path.join(directory, f"events.out.tfevents.{name}"))
        self._add(file_version="brain.Event:2")

    def add(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds one event at `step`, with a float32 scalar summary for each {tag: value}."""
        summary = summary_pb2.Summary()
        for tag, value in values.items():
            tensor = tensor_pb2.TensorProto(
                dtype=types_pb2.DT_FLOAT, tensor_shape={}, float_val=[value]
            )
            summary.value.add(tag=tag, metadata=_SCALAR, tensor=tensor)
        self.add_summary(step, summary)

    def add_summary(self, step: int, summary: summary_pb2.Summary) -> None:
        """Adds one event at `step` with a summary of any type, such as an image."""
        self._add(step=step, summary=summary)

    def add_graph(self, graph: bytes) -> None:
        """Adds one event with a serialized GraphDef, for TensorBoard's "Graphs" dashboard."""
        self._add(graph_def=graph)

    def _add(self, **fields: Any) -> None:
        self.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())


def event_files(directory: str) -> list[str]:
    """Returns the paths of the event files in a directory, sorted; [] if it does not exist."""
    return sorted(glob.glob(os.path.join(glob.escape(directory), "*.tfevents.*")))


def rewind(directory: str, step: int) -> None:
    """Removes the events after `step` from the event files in a directory.

    Also removes an event truncated by a kill, and files left by a rewind that was killed. Each file
    is replaced atomically; files without anything to remove are not changed.

    Raises:
      OSError, tf.errors.OpError: if a file cannot be read, written or removed.
    """
    for path in event_files(directory):
        if path.endswith(".part"):  # left by a rewind that was killed
            os.unlink(path)
    for path in event_files(directory):
        kept: list[bytes] = []
        # A kill may truncate the last event. The complete events before it are kept.
        with contextlib.suppress(tf.errors.DataLossError):
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                event = event_pb2.Event.FromString(record)
                if event.step <= step or event.HasField("file_version"):
                    kept.append(record)
        if sum(len(record) + 16 for record in kept) == os.path.getsize(path):
            continue  # nothing to remove
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for record in kept:
                writer.write(record)
        os.replace(f"{path}.part", path)
