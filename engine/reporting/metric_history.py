"""Reads metrics.jsonl and builds the charts of a run's metrics."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from engine.core.metrics import is_percentage
from engine.reporting.figures import Chart, Line
from engine.tasks.task import Task

_UNITS = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "loss_scale": "loss scale",
    "steps_per_second": "steps/s since the first start",
}
# Metrics of the training steps; True: the y axis is logarithmic if any value is positive.
_STEP_METRICS = {
    "learning_rate": False,
    "gradient_norm": True,
    "loss_scale": True,
    "steps_per_second": False,
}


def rows(run_dir: str) -> list[dict[str, Any]]:
    """Returns the rows of run_dir/metrics.jsonl; [] if the file does not exist.

    A last line without a newline, which is still being written, is omitted.

    Raises:
      ValueError: if another line is not a JSON object; the message names the file and the line.
      OSError: if the file cannot be read.
    """
    return read_rows(os.path.join(run_dir, "metrics.jsonl"))


def read_rows(path: str) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON objects, one per line; [] if the file does not exist.

    A last line without a newline, which is still being written, is omitted.

    Raises:
      ValueError: if another line is not a JSON object; names file and line.
      OSError: if the file cannot be read.
    """
    found = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    found.append(_row(line, f"{path}, line {number}"))
    except FileNotFoundError:
        return []
    return found


def _row(line: bytes, where: str) -> dict[str, Any]:
    """Parses a line of metrics.jsonl; returns the row as a dict.

    Raises:
      ValueError: if the line is not a JSON object; the message starts with `where`.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: is not valid JSON: {error}; remove the line") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: is not a JSON object; remove the line")
    return row


def metric_charts(
    history: list[dict[str, Any]], task: Task, steps_per_epoch: int, best_step: int | None
) -> list[Chart]:
    """Returns charts of the logged metrics and the loss, with curves of training and validation.

    Each chart has a curve for training and one for each validation set. The order is: metrics of
    the task, the loss, other metrics of the validation sets. The x axis is in epochs.

    Args:
      history: rows of metrics.jsonl.
      task: task, with the metrics and the unit of the loss.
      steps_per_epoch: number of steps of an epoch.
      best_step: step of the best evaluation, which is marked; None: no mark.
    """
    measured = [name for name in (*task.metrics, "loss") if any(name in row for row in history)]
    found = dict.fromkeys(row["split"] for row in history)
    sets = [split for split in found if split not in ("train", "test")]
    validated = {name for row in history if row["split"] in sets for name in row}
    measured += sorted(validated - {"step", "epoch", "split", "examples", *measured})
    best = None if best_step is None else best_step / steps_per_epoch
    charts = []
    for name in measured:
        factor = 100 if is_percentage(name, task.metrics) else 1
        lines = {
            split: _line(history, split, name, steps_per_epoch, factor)
            for split in ("train", *sets)
        }
        unit = task.loss_unit if name == "loss" else f"{name}, %" if factor == 100 else name
        lines = {split: line for split, line in lines.items() if len(line.x)}
        charts.append(Chart(name.replace("_", " "), unit, lines, best))
    return charts


def step_charts(history: list[dict[str, Any]], steps_per_epoch: int) -> list[Chart]:
    """Returns a chart for each of learning rate, gradient norm, loss scale and steps/s, if logged.

    The x axis is in epochs.

    Args:
      history: rows of metrics.jsonl.
      steps_per_epoch: number of steps of an epoch.
    """
    charts = []
    for name, logarithmic in _STEP_METRICS.items():
        line = _line(history, "train", name, steps_per_epoch)
        if len(line.x):
            positive = bool((line.y[np.isfinite(line.y)] > 0).any())
            title, unit = name.replace("_", " "), _UNITS[name]
            charts.append(Chart(title, unit, {"train": line}, logarithmic=logarithmic and positive))
    return charts


def _line(
    history: list[dict[str, Any]], split: str, name: str, steps_per_epoch: int, factor: int = 1
) -> Line:
    """Returns the curve of a metric of a split: x in epochs, y times `factor`; None becomes nan."""
    points = [
        (row["step"] / steps_per_epoch, np.nan if row[name] is None else row[name])
        for row in history
        if row["split"] == split and name in row
    ]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    return Line(x, factor * y)
