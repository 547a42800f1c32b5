"""`--mode=evaluate`: a run's weights on what was held out, or on any split."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from engine import metrics
from engine.config import Config, replaced
from engine.keeping.signals import Signals
from engine.metrics import jsonable
from engine.reporting import of_predictions, page, report, scores
from engine.reporting.scores import Predictions
from engine.weights import restored

_MOST_ROWS = 30  # classes that a table on a terminal has rows for
_MOST_CELLS = 100  # classes whose confusion matrix stands in the JSON


def run(config: Config) -> int:
    """Scores the validation and the test split, or `--split`; JSON is the last line.

    Prints a line and a table by class for each, and writes the same tables with pictures to
    run_dir/evaluation/SPLIT.

    Args:
      config: the run's options.

    Returns:
      The exit status.

    Raises:
      ValueError: when the run has no such weights, or nothing was held out.
      OSError: when a file cannot be written.
    """
    split = config.using.split
    if split:
        config = replaced(config, test_split=split)
    with Signals() as signals:
        found = restored(config)
        parts = found.parts
        if not parts.evaluations:
            raise ValueError("nothing was held out: give --split")
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
            about = report.about_split(parts, name, found.words, lambda: bool(signals.received))
            if about is None:
                return signals.exit_status
            results[shown] = means
            tables[shown] = _tables(about[1], list(parts.source.class_names))
            folder = os.path.join(config.run.run_dir, "evaluation", _as_name(shown))
            print(report.write(folder, about[0]), flush=True)
        parts.close()
        print(json.dumps(jsonable({"weights": found.path, **results, "tables": tables})))
        return signals.exit_status


def _tables(of: Predictions, names: list[str]) -> dict[str, Any]:
    """Prints the table by class; what stands in the JSON of it."""
    counts = scores.confusion(of.labels, of.predicted, len(names))
    by_class = scores.by_class(counts)
    if len(names) <= _MOST_ROWS:
        print(page.as_text(of_predictions.class_table(by_class, names)), flush=True)
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
    """A split as the name of a folder: test[:100] as test_100."""
    return re.sub(r"[^\w.+-]+", "_", split).strip("_") or "split"
