"""Builds the report's sections on a run: result, curves, steps, network and configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

import engine
from engine.config.arguments import REQUIRED, selected
from engine.config.option import written
from engine.config.schema import Config, option_values, sections
from engine.core.metrics import Metrics, brief, formatted
from engine.models.summary import rows as summary_rows
from engine.reporting import metric_history
from engine.reporting.figures import charts
from engine.reporting.html_page import (
    CollapsedText,
    Element,
    ReportFigure,
    ReportSection,
    ReportTable,
)
from engine.tasks.task import Task

_RESULTS = {
    "step": "steps",
    "epoch": "epochs",
    "stopped_early": "stopped early",
    "stop_reason": "reason to stop",
    "train_seconds": "seconds of training",
    "steps_per_second": "steps/s",
    "goodput": "goodput",
    "restarts": "restarts",
    "lost_steps": "steps repeated after a kill",
    "skipped_steps": "steps without a weight update",
    "left_out": "skipped bad steps",
    "evaluation_examples": "examples of each larger validation set",
    "evaluation_views": "views of each evaluated example",
    "parameters": "parameters",
    "device": "device",
    "precision": "precision",
    "emulated": "emulation",
    "onednn": "oneDNN",
    "dataset": "data set",
    "weights_sha256": "SHA-256 of the weights",
}


def result(outcome: Mapping[str, Any] | None, weights: str, metrics: Metrics) -> ReportSection:
    """Returns the section on the results of a run: final metrics, best evaluation and counters.

    The metrics of a split are left out if one of them is None, which result.json has for nan.

    Args:
      outcome: content of result.json; None: the run has not ended, and the section is a sentence
        that says so and names `weights`.
      weights: description of the weights that compute the predictions, for display.
      metrics: the task's metrics, by name.
    """
    if outcome is None:
        return ReportSection("Result", [f"The run has not ended. Predictions use {weights}."])
    sets = outcome.get("validation_sets") or {"validation": outcome.get("validation")}
    splits = {**sets, "test": outcome.get("test")}
    scored = {split: values for split, values in splits.items() if values}
    measured = dict.fromkeys(name for values in scored.values() for name in values)
    names = [*(name for name in measured if name not in ("loss", "examples")), "loss"]
    rows = [
        (
            split,
            *(formatted(name, _number(values.get(name)), metrics) for name in names),
            f"{values['examples']:,}",
        )
        for split, values in scored.items()
    ]
    elements: list[Element] = []
    if rows:
        header = ("split", *names, "examples")
        caption = f"Results at the end of the run. The predictions below use {weights}."
        elements.append(ReportTable(header, rows, caption))
    if best := outcome.get("best"):
        elements.append(
            f"Best by {best['metric']}: {_number(best['value']):.4f}, after step {best['step']:,}."
        )
    others = [
        (label, _value(name, outcome[name])) for name, label in _RESULTS.items() if name in outcome
    ]
    elements.append(ReportTable((), others))
    return ReportSection("Result", elements)


def _number(value: float | None) -> float:
    """Returns a value of result.json, which has null for nan and infinity, as nan."""
    return math.nan if value is None else value


def curves(
    rows: list[dict[str, Any]], task: Task, steps_per_epoch: int, best_step: int | None
) -> ReportSection | None:
    """Returns the section with charts of loss and metrics over epochs, and the last values as text.

    Returns None if neither the loss nor a metric is logged yet.

    Args:
      rows: rows of metrics.jsonl.
      task: task, with the metrics.
      steps_per_epoch: number of steps of an epoch.
      best_step: step of the best evaluation, which is marked; None: no mark.
    """
    panels = metric_history.metric_charts(rows, task, steps_per_epoch, best_step)
    if not panels:
        return None
    last = {row["split"]: row for row in rows}
    names = ("loss", *task.metrics)
    points = [
        f"{split}: {brief(values, task.metrics)}"
        for split, row in last.items()
        if (values := {name: row[name] for name in names if row.get(name) is not None})
    ]
    figure = ReportFigure(
        "curves",
        lambda: charts(panels, x="epoch"),
        "Training and validation by epoch. A training point is the mean over the steps "
        "since the point before, with dropout and augmentation where there are any. The "
        "vertical line is the best evaluation.",
    )
    return ReportSection("Curves", [f"Last points: {'; '.join(points)}.", figure])


def steps(rows: list[dict[str, Any]], steps_per_epoch: int) -> ReportSection | None:
    """Returns the section with charts of learning rate, gradient norm, loss scale and throughput.

    A value that is not logged has no chart; returns None if no value is logged.

    Args:
      rows: rows of metrics.jsonl.
      steps_per_epoch: number of steps of an epoch.
    """
    panels = metric_history.step_charts(rows, steps_per_epoch)
    if not panels:
        return None
    figure = ReportFigure(
        "steps",
        lambda: charts(panels, x="epoch"),
        "The learning rate, the mean norm of the gradient before clipping, steps per second.",
    )
    return ReportSection("Steps", [figure])


def network(model: tf.Module, name: str) -> ReportSection:
    """Returns the section with the layers of a model, their output shapes and parameter counts.

    `name` is the caption of the table: the name of the model.
    """
    layers = summary_rows(model)
    rows = [
        (layer.layer, str(layer.output_shape or "-"), f"{layer.parameters:,}") for layer in layers
    ]
    rows.append(("total", "", f"{sum(layer.parameters for layer in layers):,}"))
    header = ("layer", "output shape", "parameters")
    return ReportSection("Network", [ReportTable(header, rows, name, frozenset([len(layers)]))])


def configuration(config: Config) -> ReportSection:
    """Returns the section with non-default options, all options, and versions.

    The versions are those of Tapeline and TensorFlow.
    """
    changed, options, defaults = [], [], Config()
    for name, section in sections():
        for field in dataclasses.fields(section):
            value = getattr(getattr(config, name), field.name)
            options.append(f"--{field.name}={written(value)}")
            default = getattr(getattr(defaults, name), field.name)
            if value != default:
                changed.append((f"--{field.name}", written(value), written(default)))
    for argument in selected(option_values(config)):
        value = config.arguments[argument.name]
        options.append(f"--{argument.name}={written(value)}")
        if value != argument.default:
            default = "" if argument.default is REQUIRED else written(argument.default)
            changed.append((f"--{argument.name}", written(value), default))
    return ReportSection(
        "Configuration",
        [
            ReportTable(
                ("option", "value", "default"), changed, "Options that are not the default."
            ),
            CollapsedText("Every option", "\n".join(options)),
            f"Made with tapeline {engine.__version__}, tensorflow {tf.__version__}.",
        ],
    )


def _value(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "goodput":
        return f"{value:.1%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
