"""TensorBoard summaries other than scalars: text, images, histograms, graph, hyperparameters."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import summary_pb2

from engine.logging.event_file import EventFile, event_files


def text(tag: str, markdown: str) -> summary_pb2.Summary:
    """Returns a text summary of Markdown, for TensorBoard's "Text" dashboard."""
    from tensorboard.plugins.text.metadata import create_summary_metadata

    return _summary(tag, create_summary_metadata(None, None), markdown, tf.string)


def picture(tag: str, png: bytes, caption: str) -> summary_pb2.Summary:
    """Returns an image summary of an encoded PNG, for TensorBoard's "Images" dashboard."""
    from tensorboard.plugins.image.metadata import create_summary_metadata

    width, height = struct.unpack(">II", png[16:24])  # in the IHDR chunk of the PNG
    values = [str(width).encode(), str(height).encode(), png]
    return _summary(tag, create_summary_metadata(None, caption), values, tf.string)


def histogram(tag: str, values: np.ndarray) -> summary_pb2.Summary:
    """Returns a histogram summary of the finite values, with 30 buckets of equal width."""
    from tensorboard.plugins.histogram.metadata import create_summary_metadata

    counts, edges = np.histogram(values[np.isfinite(values)].astype(np.float64), 30)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return _summary(tag, create_summary_metadata(None, None), buckets, tf.float64)


def hyperparameters(
    values: Mapping[str, Any], metrics: Sequence[tuple[str, str]], name: str
) -> list[summary_pb2.Summary]:
    """Returns the summaries of one trial, which is a row of TensorBoard's "HParams" dashboard.

    The row shows `values`, hyperparameters by name, and the last values of the scalar summaries
    `metrics`, each given as (split, tag). `name` is the trial ID.
    """
    from tensorboard.plugins.hparams import api

    columns = [
        api.Metric(tag, group=split, display_name=f"{split} {tag}") for split, tag in metrics
    ]
    summaries = (
        api.hparams_config_pb(hparams=[api.HParam(key) for key in values], metrics=columns),
        api.hparams_pb(dict(values), trial_id=name),
    )
    return [summary_pb2.Summary.FromString(each.SerializeToString()) for each in summaries]


def show(run_dir: str, step: int, summaries: Sequence[summary_pb2.Summary], graph: bytes) -> None:
    """Writes a serialized GraphDef and summaries to run_dir/tensorboard/.

    Writes a new event file and removes the earlier ones; the summaries are logged at `step`.

    Raises:
      OSError: if the event file cannot be written.
    """
    directory = os.path.join(run_dir, "tensorboard")
    earlier = event_files(directory)
    try:
        file = EventFile(directory)
        file.add_graph(graph)
        for summary in summaries:
            file.add_summary(step, summary)
        file.close()
    except tf.errors.OpError as error:
        raise OSError(f"cannot write to {directory}: {error.message}") from error
    for path in earlier:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _summary(tag: str, metadata: Any, value: Any, dtype: tf.DType) -> summary_pb2.Summary:
    # TensorBoard has its own copy of the metadata's message type.
    summary = summary_pb2.Summary()
    summary.value.add(
        tag=tag,
        metadata=summary_pb2.SummaryMetadata.FromString(metadata.SerializeToString()),
        tensor=tf.make_tensor_proto(value, dtype=dtype),
    )
    return summary
