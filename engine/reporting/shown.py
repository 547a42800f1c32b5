"""What of a run TensorBoard shows beside its curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

import models
from engine import flags
from engine.assembly import Parts
from engine.config import Config, sections
from engine.keeping import showcase
from engine.options import written
from engine.reporting.page import Picture

# Columns of "HParams" in every run; further ones are what else a run has set.
_ALWAYS = (
    "dataset",
    "model",
    "optimizer",
    "learning_rate",
    "schedule",
    "global_batch_size",
    "precision",
    "seed",
)
_PICTURES = {
    "samples_train",
    "samples_by_class",
    "predictions",
    "confusion_counts",
    "confusion_rows",
    "mistakes",
    "calibration",
}


def show(parts: Parts, pictures: Sequence[Picture] | None = None) -> None:
    """Options, network and graph; at the end pictures and a row of hyperparameters too.

    Args:
      parts: of the run.
      pictures: of its report; None: the end has not come yet.

    Raises:
      OSError: when it cannot be written.
    """
    config, step = parts.config, int(parts.state.step)
    shown = [
        showcase.text("configuration", f"```\n{flags.flagfile(config)}```"),
        showcase.text("network", f"```\n{models.table(parts.model)}\n```"),
    ]
    if pictures is not None:
        shown += [
            showcase.picture(picture.name, picture.png, picture.caption)
            for picture in pictures
            if picture.name in _PICTURES
        ]
        metrics = [
            (split, name) for split in parts.evaluations for name in ("loss", *parts.task.metrics)
        ]
        row = showcase.hyperparameters(hyperparameters(config), metrics, config.run.run_dir)
        shown += row
    showcase.show(config.run.run_dir, step, shown, _graph(parts.model))


def hyperparameters(config: Config) -> dict[str, showcase.Value]:
    """What a run is told by among others: the usual options, and what else was set."""
    return {
        field.name: value if isinstance(value, (bool, int, float)) else written(value)
        for name, section in sections()
        for field in dataclasses.fields(section)
        if field.metadata["trajectory"]
        and (
            (value := getattr(getattr(config, name), field.name)) != field.default
            or field.name in _ALWAYS
        )
    }


def _graph(model: models.Sequential) -> bytes:
    """The network's layers as they are computed, a serialized GraphDef."""
    images = tf.TensorSpec([None, *model.input_shape], tf.float32)
    traced = tf.function(lambda x: model(x), autograph=False).get_concrete_function(images)
    return traced.graph.as_graph_def().SerializeToString()
