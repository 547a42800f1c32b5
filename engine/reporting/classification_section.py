"""Report section on classification: confusion matrix, scores of classes, errors, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.reporting import any_section, html_page, predictions_section, scores
from engine.reporting.predictions import SplitPredictions, TaskSection
from engine.reporting.scores import Predictions

_MAX_ROWS = 30  # maximum number of classes in a table on a terminal
_MAX_CELLS = 100  # maximum number of classes of a confusion matrix in the JSON


def section(of: SplitPredictions) -> TaskSection:
    """Returns the section on predicted classes, the scores of each class, and a CSV of predictions.

    Examples whose label the task ignores are only in the CSV. If the task ignores all labels,
    returns the section of `any_section` instead, on the losses.

    Raises:
      ValueError: if the inputs are images and the data set is damaged.
      OSError: if the inputs are images and a file of the data set cannot be read.
    """
    names = list(of.source.class_names)
    listed = predictions = Predictions(of.predicted["probabilities"], of.targets)
    kept = np.arange(len(of.targets))
    if of.task.ignore_label is not None:
        kept = np.flatnonzero(of.targets != of.task.ignore_label)
        if not len(kept):
            return any_section.section(of)
        predictions = Predictions(listed.probabilities[kept], listed.labels[kept])

    def images(indices: np.ndarray) -> Any:
        return of.inputs(kept[indices])

    counts = scores.confusion(predictions.labels, predictions.predicted, len(names))
    by_class = scores.by_class(counts)
    keys = ("precision", "recall", "f1", "examples")
    columns = (column.tolist() for column in by_class)
    values: dict[str, Any] = {
        "calibration_error": scores.calibration(predictions).error,
        "by_class": {
            name: dict(zip(keys, row, strict=True))
            for name, *row in zip(names, *columns, strict=True)
        },
    }
    if len(names) <= _MAX_CELLS:
        values["confusion"] = counts.tolist()
    text = ""
    if len(names) <= _MAX_ROWS:
        text = html_page.format_table(predictions_section.class_table(by_class, names))
    return TaskSection(
        predictions_section.section(
            of.split, predictions, names, images if of.source.has_images else None
        ),
        {f"{of.split}_predictions.csv": predictions_section.predictions_csv(listed, names)},
        values,
        text,
    )
