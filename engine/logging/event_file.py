"""Writes TensorBoard event files, and rewinds them to a step."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import summary_pb2, tensor_pb2, types_pb2
from tensorflow.core.util import event_pb2

_IN_PROCESS = itertools.count()


class EventFile:
    """A TensorBoard event file; each call of an `add` method writes one event.

    Args:
      directory: directory of the file; created if missing.
    """

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_IN_PROCESS)}"
        self._writer = tf.io.TFRecordWriter(os.path.join(directory, f"events.out.tfevents.{name}"))
        self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds one event with a float32 scalar summary for each tag."""
        drawn = [
            summary_pb2.Summary.Value(
                tag=tag,
                metadata=_SCALAR,
                tensor=tensor_pb2.TensorProto(
                    dtype=types_pb2.DT_FLOAT,
                    tensor_shape={},
                    float_val=[value],
                ),
            )
            for tag, value in values.items()
        ]
        self.add_summary(step, summary_pb2.Summary(value=drawn))

    def add_summary(self, step: int, summary: summary_pb2.Summary) -> None:
        """Adds one event with a summary."""
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def add_graph(self, graph: bytes) -> None:
        """Adds one event with a serialized GraphDef, for the "Graphs" dashboard."""
        self._write(event_pb2.Event(wall_time=time.time(), graph_def=graph))

    def flush(self) -> None:
        """Flushes the events added so far to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: event_pb2.Event) -> None:
        self._writer.write(event.SerializeToString())


_SCALAR = summary_pb2.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class=summary_pb2.DATA_CLASS_SCALAR
)


def histogram(tag: str, values: np.ndarray) -> summary_pb2.Summary:
    """Returns a histogram summary of the finite values, with 30 buckets of equal width."""
    from tensorboard.plugins.histogram import metadata

    counts, edges = np.histogram(values[np.isfinite(values)].astype(np.float64), 30)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    about = metadata.create_summary_metadata(None, None).SerializeToString()
    value = summary_pb2.Summary.Value(
        tag=tag,
        metadata=summary_pb2.SummaryMetadata.FromString(about),
        tensor=tf.make_tensor_proto(buckets, dtype=tf.float64),
    )
    return summary_pb2.Summary(value=[value])


def event_files(directory: str) -> list[str]:
    """Returns the paths of the event files in a directory, sorted; [] if it does not exist."""
    if not os.path.isdir(directory):
        return []
    return [os.path.join(directory, n) for n in sorted(os.listdir(directory)) if ".tfevents." in n]


def rewind(directory: str, step: int) -> None:
    """Removes the events after `step` from a directory's event files; replaces each atomically."""
    for path in event_files(directory):
        if path.endswith(".part"):  # left by a rewind that was killed
            os.unlink(path)
    for path in event_files(directory):
        kept, dropped = [], False
        # A kill may truncate the last event. The complete events before it are kept.
        with contextlib.suppress(tf.errors.DataLossError):
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                event = event_pb2.Event.FromString(record)
                if event.step <= step or event.HasField("file_version"):
                    kept.append(record)
                else:
                    dropped = True
        size = sum(len(record) + 16 for record in kept)
        if not dropped and size == os.path.getsize(path):
            continue
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for record in kept:
                writer.write(record)
        os.replace(f"{path}.part", path)
