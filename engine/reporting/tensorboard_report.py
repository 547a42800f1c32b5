"""Writes TensorBoard summaries of a run: options, layers, graph, figures, hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from engine.assembly.parts import Parts
from engine.config import flags
from engine.config.option import written
from engine.config.schema import Config, sections
from engine.logging import run_summary
from engine.models.base import ForwardContext
from engine.models.summary import table as summary_table
from engine.reporting.html_page import ReportFigure

# Options in the "HParams" row of every run; a row adds trajectory options that are not defaults.
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
# Figures of the report that TensorBoard does not show; it draws curves itself.
_NOT_SHOWN = {"curves", "steps", "class_balance", "class_scores", "confused_pairs"}


def show(parts: Parts, pictures: Sequence[ReportFigure] | None = None) -> None:
    """Writes the TensorBoard summaries of a run, and removes those that `show` wrote before.

    They are the options, the layer table and the graph; at the end of the run, also figures of the
    report and a row of the HParams dashboard.

    Args:
      parts: assembled run.
      pictures: figures of the run's report, of which those in `_NOT_SHOWN` are left out; None: the
        run has not ended.

    Raises:
      OSError: if the event file cannot be written.
    """
    config, step = parts.config, int(parts.state.step)
    summaries = [
        run_summary.text("configuration", f"```\n{flags.flagfile(config)}```"),
        run_summary.text("network", f"```\n{summary_table(parts.model)}\n```"),
    ]
    if pictures is not None:
        summaries += [
            run_summary.picture(picture.name, picture.png, picture.caption)
            for picture in pictures
            if picture.name not in _NOT_SHOWN
        ]
        names = ("loss", *parts.task.metrics)
        metrics = [(split, name) for split in parts.evaluations for name in names]
        values = _hyperparameters(config)
        summaries += run_summary.hyperparameters(values, metrics, config.run.run_dir)
    run_summary.show(config.run.run_dir, step, summaries, _graph(parts))


def _hyperparameters(config: Config) -> dict[str, Any]:
    """Returns {name: value} of the options that affect the weights: non-default or in `_ALWAYS`.

    All arguments of registered functions are included. Values are bool, int, float or text.
    """
    values, defaults = {}, Config()
    for name, section in sections():
        for field in dataclasses.fields(section):
            value, default = (
                getattr(getattr(each, name), field.name) for each in (config, defaults)
            )
            if field.metadata["trajectory"] and (value != default or field.name in _ALWAYS):
                plain = isinstance(value, (bool, int, float))
                values[field.name] = value if plain else written(value)
    for name, value in config.arguments.items():
        values[name] = value if isinstance(value, (bool, int, float)) else written(value)
    return values


def _graph(parts: Parts) -> bytes:
    """Returns the graph of the network's forward pass in evaluation as a serialized GraphDef."""
    batch = tf.nest.map_structure(
        lambda spec: tf.TensorSpec([None, *spec.shape], spec.dtype), parts.source.inputs
    )
    forward = tf.function(lambda x: parts.model(x, ForwardContext()), autograph=False)
    traced = forward.get_concrete_function(batch)
    return traced.graph.as_graph_def().SerializeToString()
