"""Implements `--mode=evaluate`: evaluates a run's weights on held-out or given splits."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from engine.assembly.trained import restored
from engine.config.schema import Config, replaced
from engine.core import metrics
from engine.core.metrics import jsonable
from engine.reporting import html_page, predictions_section, report, scores
from engine.reporting.scores import Predictions
from engine.runtime.signals import Signals

_MAX_ROWS = 30  # maximum number of classes in a table on a terminal
_MAX_CELLS = 100  # maximum number of classes of a confusion matrix in the JSON


def run(config: Config) -> int:
    """Evaluates a run's weights on its validation and test splits, or on `--split`.

    For each split, prints the metrics and, for up to `_MAX_ROWS` classes, a table of the scores of
    each class, and writes a report to run_dir/evaluation/SPLIT. Prints all scores as JSON last.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the weights or the split do not exist, or no split is held out or given.
      OSError: if the checkpoint is damaged or a file cannot be written.
      RuntimeError: if TensorFlow fails.
    """
    split = config.report.split
    if split:
        config = replaced(config, test_split=split)
    with Signals() as signals, restored(config) as restored_run:
        parts, weights = restored_run.parts, restored_run.description
        if not parts.evaluations:
            raise ValueError("no split is held out: give --split")
        print(f"evaluating {weights}, {restored_run.path}, on {parts.device}", flush=True)
        results: dict[str, Any] = {}
        tables: dict[str, Any] = {}

        def interrupted() -> bool:
            return bool(signals.received)

        for name, evaluation in parts.evaluations.items():
            if split and name != "test":
                continue
            shown = split or name
            means = evaluation.run(interrupted)
            if means is None:
                return signals.exit_status
            print(f"{shown} {metrics.brief(means)} of {means['examples']:,} examples", flush=True)
            content = report.build_split_report(parts, name, weights, interrupted)
            if content is None:
                return signals.exit_status
            split_report, predictions = content
            results[shown] = means
            tables[shown] = _tables(predictions, list(parts.source.class_names))
            # A directory name such as test_100 for test[:100].
            subdirectory = re.sub(r"[^\w.+-]+", "_", shown).strip("_") or "split"
            directory = os.path.join(config.run.run_dir, "evaluation", subdirectory)
            print(report.write(directory, split_report), flush=True)
        print(json.dumps(jsonable({"weights": restored_run.path, **results, "tables": tables})))
        return signals.exit_status


def _tables(of: Predictions, names: list[str]) -> dict[str, Any]:
    """Returns calibration error, class scores and confusion matrix by name; prints class scores."""
    counts = scores.confusion(of.labels, of.predicted, len(names))
    by_class = scores.by_class(counts)
    if len(names) <= _MAX_ROWS:
        print(html_page.format_table(predictions_section.class_table(by_class, names)), flush=True)
    keys = ("precision", "recall", "f1", "examples")
    columns = (column.tolist() for column in by_class)
    tables = {
        "calibration_error": scores.calibration(of).error,
        "by_class": {
            name: dict(zip(keys, values, strict=True))
            for name, *values in zip(names, *columns, strict=True)
        },
    }
    if len(names) <= _MAX_CELLS:
        tables["confusion"] = counts.tolist()
    return tables
