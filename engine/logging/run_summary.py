"""Writes TensorBoard summaries of a run other than scalars: text, images, graph, hyperparameters.

run_dir/tensorboard/events.out.tfevents...      one event file, rewritten as a whole
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework import summary_pb2

from engine.logging.event_file import EventFile, event_files

Value = str | float | int | bool


def text(tag: str, markdown: str) -> summary_pb2.Summary:
    """Returns a text summary, for the "Text" dashboard."""
    from tensorboard.plugins.text import metadata

    about = metadata.create_summary_metadata(None, None)
    return _summary(tag, about, tf.make_tensor_proto(markdown, dtype=tf.string))


def picture(tag: str, png: bytes, caption: str) -> summary_pb2.Summary:
    """Returns an image summary of an encoded PNG, for the "Images" dashboard."""
    from tensorboard.plugins.image import metadata

    width, height = struct.unpack(">II", png[16:24])  # in the IHDR chunk of the PNG
    about = metadata.create_summary_metadata(None, caption)
    values = [str(width).encode(), str(height).encode(), png]
    return _summary(tag, about, tf.make_tensor_proto(values, dtype=tf.string))


def hyperparameters(
    values: Mapping[str, Value], metrics: Sequence[tuple[str, str]], name: str
) -> list[summary_pb2.Summary]:
    """Returns the summaries of one trial, which is a row of the "HParams" dashboard.

    Args:
      values: option values by name.
      metrics: (split, tag) of each scalar summary whose last value the row shows.
      name: trial ID, which is also the name of the trial's session group.
    """
    from tensorboard.plugins.hparams import api

    shown = [
        api.hparams_config_pb(
            hparams=[api.HParam(key) for key in values],
            metrics=[
                api.Metric(tag, group=split, display_name=f"{split} {tag}")
                for split, tag in metrics
            ],
        ),
        api.hparams_pb(dict(values), trial_id=name),
    ]
    return [summary_pb2.Summary.FromString(each.SerializeToString()) for each in shown]


def show(
    run_dir: str, step: int, summaries: Sequence[summary_pb2.Summary], graph: bytes | None = None
) -> None:
    """Writes summaries to a new event file in tensorboard/, and removes the earlier ones there.

    Args:
      run_dir: run directory.
      step: step of all summaries.
      summaries: summaries to write, such as those of `text`, `picture` and `hyperparameters`.
      graph: serialized GraphDef; None: no graph.

    Raises:
      OSError: if the event file cannot be written.
    """
    directory = os.path.join(run_dir, "tensorboard")
    before = event_files(directory)
    try:
        file = EventFile(directory)
        if graph is not None:
            file.add_graph(graph)
        for summary in summaries:
            file.add_summary(step, summary)
        file.close()
    except tf.errors.OpError as error:
        raise OSError(f"cannot write to {directory}: {error.message}") from error
    for path in before:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _summary(tag: str, about: object, tensor: object) -> summary_pb2.Summary:
    metadata = summary_pb2.SummaryMetadata.FromString(about.SerializeToString())  # type: ignore[attr-defined]
    return summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]
    )
