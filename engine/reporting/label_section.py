"""Report section on multi-label classification: scores of each label, and the largest losses."""

from __future__ import annotations

import math

import numpy as np

from engine.reporting import html_page, scores
from engine.reporting.any_section import largest_losses, write_csv
from engine.reporting.figures import class_scores
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable
from engine.reporting.predictions import SplitPredictions, TaskSection
from engine.reporting.predictions_section import percent
from engine.reporting.scores import ClassScores

_MAX_ROWS = 30  # maximum number of labels in a table on a terminal
_MAX_COLUMNS = 64  # maximum number of labels in the CSV


def section(of: SplitPredictions) -> TaskSection:
    """Returns the section on predicted labels, the scores of each label, and a CSV of predictions.

    Raises:
      ValueError: if the inputs are images and the data set is damaged.
      OSError: if the inputs are images and a file of the data set cannot be read.
    """
    true, probabilities = of.targets > 0.5, of.predicted["probabilities"]
    names = _names(of)
    by_label = scores.by_label(true, of.predicted["predicted"])
    areas = [scores.curve_areas(*each) for each in zip(true.T, probabilities.T, strict=True)]
    roc, average = np.array(areas, np.float64).reshape(-1, 2).T
    table = label_table(by_label, roc, average, names)
    correct = np.all(true == of.predicted["predicted"], axis=1)
    elements: list[Element] = [
        f"All labels are predicted correctly in {int(correct.sum()):,} of {len(correct):,} "
        f"examples; {of.split}_predictions.csv lists them.",
        table,
        ReportFigure(
            "label_scores",
            lambda: class_scores(*by_label[:3], names, title=f"By label, {of.split}", axis="label"),
            "Precision, recall and F1 of each label, which is predicted where its probability is "
            "above 1/2.",
        ),
        *largest_losses(of),
    ]
    keys = ("precision", "recall", "f1", "positives", "auc", "average_precision")
    columns = (column.tolist() for column in (*by_label, roc, average))
    values = {
        "by_label": {
            name: dict(zip(keys, row, strict=True))
            for name, *row in zip(names, *columns, strict=True)
        }
    }
    return TaskSection(
        ReportSection(f"Predictions on {of.split}", elements),
        {f"{of.split}_predictions.csv": predictions_csv(true, probabilities, names)},
        values,
        html_page.format_table(table) if len(names) <= _MAX_ROWS else "",
    )


def label_table(
    by_label: ClassScores, roc: np.ndarray, average: np.ndarray, names: list[str]
) -> ReportTable:
    """Returns a table of the scores of each label.

    The last row has the total of the positives, and the mean of each score over the labels for
    which the score is defined.

    Args:
      by_label: precision, recall, F1 and number of positives of each label.
      roc: area under the ROC curve of each label, float64 [labels]; nan where undefined.
      average: average precision of each label, float64 [labels]; nan where undefined.
      names: names of the labels.
    """
    columns = [*by_label[:3], roc, average]
    rows = [
        (name, f"{positives:,}", *_cells(values))
        for name, positives, *values in zip(names, by_label.support, *columns, strict=True)
    ]
    known = [column[~np.isnan(column)] for column in columns]
    means = _cells([float(column.mean()) if len(column) else math.nan for column in known])
    rows.append(("mean of the labels", f"{by_label.support.sum():,}", *means))
    header = (
        "label",
        "positives",
        "precision",
        "recall",
        "F1",
        "area under ROC curve",
        "average precision",
    )
    return ReportTable(header, rows, bold=frozenset([len(names)]))


def predictions_csv(true: np.ndarray, probabilities: np.ndarray, names: list[str]) -> str:
    """Returns the text of a CSV file: index, targets (0 or 1) and probabilities of each example.

    Only the first 64 labels are included.

    Args:
      true: whether each example has each label, bool [n, labels].
      probabilities: predicted probabilities, float [n, labels].
      names: names of the labels.
    """
    shown = names[:_MAX_COLUMNS]
    header = [f"{kind} {name}" for kind in ("target", "probability") for name in shown]
    targets = true[:, : len(shown)].astype(int).tolist()
    values = probabilities[:, : len(shown)].tolist()
    rows = (
        (index, *of_targets, *(f"{value:.6f}" for value in of_values))
        for index, (of_targets, of_values) in enumerate(zip(targets, values, strict=True))
    )
    return write_csv(("number", *header), rows)


def _names(of: SplitPredictions) -> list[str]:
    """Returns the names of the labels if the data set names each, else the indices as text."""
    labels, names = of.targets.shape[1], list(of.source.class_names)
    return names if len(names) == labels else [str(label) for label in range(labels)]


def _cells(values: list[float]) -> list[str]:
    """Formats the five scores of a label as table cells; nan as `-`.

    Precision, recall and F1 are percentages; the area under the ROC curve and the average precision
    have four decimals.
    """
    areas = ("-" if math.isnan(value) else f"{value:.4f}" for value in values[3:])
    return [*map(percent, values[:3]), *areas]
