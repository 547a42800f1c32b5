"""Implements `--mode=evaluate`: evaluates a run's weights on the held-out or any other splits."""

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

_MOST_ROWS = 30  # maximum number of classes in a table on a terminal
_MOST_CELLS = 100  # maximum number of classes of a confusion matrix in the JSON


def run(config: Config) -> int:
    """Evaluates the validation and the test split, or `--split`; prints the results as JSON last.

    For each split, prints the metrics and, for up to `_MOST_ROWS` classes, the per-class table of
    scores, and writes a report with the table to run_dir/evaluation/SPLIT.

    Args:
      config: options of the run.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the requested weights do not exist, or no split is held out.
      OSError: if the checkpoint is damaged or a file cannot be written.
      RuntimeError: if TensorFlow fails.
    """
    split = config.report.split
    if split:
        config = replaced(config, test_split=split)
    with Signals() as signals, restored(config) as found:
        parts = found.parts
        if not parts.evaluations:
            raise ValueError("no split is held out: give --split")
        print(f"evaluating {found.words}, {found.path}, on {parts.device}", flush=True)
        results: dict[str, Any] = {}
        tables: dict[str, Any] = {}
        for name, evaluation in parts.evaluations.items():
            if split and name != "test":
                continue
            shown = split or name
            means = evaluation.run(lambda: bool(signals.received))
            if means is None:
                return signals.exit_status
            print(f"{shown} {metrics.brief(means)} of {means['examples']:,} examples", flush=True)
            about = report.build_split_report(
                parts, name, found.words, lambda: bool(signals.received)
            )
            if about is None:
                return signals.exit_status
            results[shown] = means
            tables[shown] = _tables(about[1], list(parts.source.class_names))
            folder = os.path.join(config.run.run_dir, "evaluation", _as_name(shown))
            print(report.write(folder, about[0]), flush=True)
        print(json.dumps(jsonable({"weights": found.path, **results, "tables": tables})))
        return signals.exit_status


def _tables(of: Predictions, names: list[str]) -> dict[str, Any]:
    """Prints the per-class table of up to `_MOST_ROWS` classes; returns the scores for the JSON."""
    counts = scores.confusion(of.labels, of.predicted, len(names))
    by_class = scores.by_class(counts)
    if len(names) <= _MOST_ROWS:
        print(html_page.format_table(predictions_section.class_table(by_class, names)), flush=True)
    found = {
        "calibration_error": scores.calibration(of).error,
        "by_class": {
            name: {
                "precision": float(by_class.precision[at]),
                "recall": float(by_class.recall[at]),
                "f1": float(by_class.f1[at]),
                "examples": int(by_class.support[at]),
            }
            for at, name in enumerate(names)
        },
    }
    if len(names) <= _MOST_CELLS:
        found["confusion"] = counts.tolist()
    return found


def _as_name(split: str) -> str:
    """Returns a directory name for a split: test_100 for test[:100]."""
    return re.sub(r"[^\w.+-]+", "_", split).strip("_") or "split"
