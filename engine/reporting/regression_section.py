"""Report section on regression: errors of each predicted number, and the largest losses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engine.reporting import html_page
from engine.reporting.any_section import largest_losses, write_csv
from engine.reporting.figures import Scatter, predictions_over_targets
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable
from engine.reporting.predictions import SplitPredictions, TaskSection

_MAX_ROWS = 20  # maximum numbers of an example that have a row each in the table
_MAX_PANELS = 4  # maximum numbers of an example that have a panel each in the figure
_MAX_POINTS = 5000  # maximum number of points of a panel
_MAX_COLUMNS = 16  # maximum numbers of an example in the CSV
_CHUNK = 1 << 22  # how many numbers are converted to float64 at once


class Errors(NamedTuple):
    """Error metrics of predicted numbers, and mean and standard deviation of the targets."""

    mean_absolute_error: float
    root_mean_squared_error: float
    r2: float  # nan if all targets are equal
    target_mean: float
    target_deviation: float  # population standard deviation


def section(of: SplitPredictions) -> TaskSection:
    """Returns the section on predicted numbers, the error metrics, and a CSV of predictions.

    Raises:
      ValueError: if the inputs are images and the data set is damaged.
      OSError: if the inputs are images and a file of the data set cannot be read.
    """
    targets = of.targets.reshape(len(of.losses), -1)
    predicted = of.predicted["predictions"].reshape(targets.shape)
    names = _names(of.targets.shape[1:])
    # Numbers beyond those in the table, such as the pixels of an image, are taken together.
    many = len(names) > _MAX_ROWS
    found = {"all": errors(targets, predicted)}
    if not many:
        single = {name: errors(targets[:, k], predicted[:, k]) for k, name in enumerate(names)}
        found = single if len(names) == 1 else single | found
    table = _table(found, len(of.losses), of.examples)
    panels = [
        Scatter(f"number {name}" if len(names) > 1 else "", *_some(targets[:, k], predicted[:, k]))
        for k, name in enumerate(names[:_MAX_PANELS])
    ]
    if many:
        panels = [Scatter("all numbers", *_some(targets.ravel(), predicted.ravel()))]
    elements: list[Element] = [
        table,
        ReportFigure(
            "predictions_over_targets",
            lambda: predictions_over_targets(panels, title=f"Predictions on {of.split}"),
            f"Predictions over targets, {_shown(len(names), many)}, {_MAX_POINTS:,} points each at "
            "most. On the dashed line both are equal.",
        ),
        *largest_losses(of),
    ]
    values = {name: each._asdict() for name, each in found.items()}
    return TaskSection(
        ReportSection(f"Predictions on {of.split}", elements),
        {f"{of.split}_predictions.csv": predictions_csv(targets, predicted, names)},
        {"errors": values},
        html_page.format_table(table),
    )


def errors(targets: np.ndarray, predicted: np.ndarray) -> Errors:
    """Computes error metrics of predictions, and the mean and standard deviation of the targets.

    The metrics are the mean absolute error, the root mean squared error and R2. Both arguments have
    the same shape, [n, ...], with at least one element; each element has the same weight.
    """
    targets, predicted = targets.ravel(), predicted.ravel()
    mean, totals = targets.mean(dtype=np.float64), np.zeros(3)
    with np.errstate(over="ignore", invalid="ignore"):  # of weights that diverged
        # By chunks, because arrays of pixels in float64 are large.
        for start in range(0, len(targets), _CHUNK):
            part = targets[start : start + _CHUNK].astype(np.float64)
            difference = predicted[start : start + _CHUNK].astype(np.float64) - part
            squares = np.square(difference), np.square(part - mean)
            totals += [np.abs(difference).sum(), *(each.sum() for each in squares)]
    absolute, squared, variance = (totals / len(targets)).tolist()
    if (targets == targets[0]).all():  # the mean of equal numbers may be rounded
        variance = 0.0
    return Errors(
        absolute,
        math.sqrt(squared),
        1 - squared / variance if variance else math.nan,
        float(mean),
        math.sqrt(variance),
    )


def predictions_csv(targets: np.ndarray, predicted: np.ndarray, names: list[str]) -> str:
    """Returns the text of a CSV file: index, targets and predictions of each example.

    Only the first 16 numbers of an example are included.

    Args:
      targets: targets, [n, numbers].
      predicted: predictions, [n, numbers].
      names: names of the numbers.
    """
    shown = names[:_MAX_COLUMNS]
    several = len(names) > 1
    header = [
        f"{kind} {name}" if several else kind for kind in ("target", "prediction") for name in shown
    ]
    columns = targets[:, : len(shown)].tolist(), predicted[:, : len(shown)].tolist()
    rows = (
        (index, *(f"{value:.6g}" for value in (*of_targets, *of_predicted)))
        for index, (of_targets, of_predicted) in enumerate(zip(*columns, strict=True))
    )
    return write_csv(("number", *header), rows)


def _names(shape: tuple[int, ...]) -> list[str]:
    """Returns a name for each number of an example: its index, such as "2" or "0,2"."""
    return [",".join(map(str, index)) or "0" for index in np.ndindex(*shape)]


def _shown(numbers: int, many: bool) -> str:
    if many:
        return f"all {numbers:,} numbers of an example together"
    if numbers > _MAX_PANELS:
        return f"the first {_MAX_PANELS} of {numbers} numbers of an example"
    return "a panel for each number" if numbers > 1 else "one number for each example"


def _some(targets: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `targets` and `predicted`, [n] each, at up to `_MAX_POINTS` evenly spaced indices."""
    chosen = np.linspace(0, len(targets) - 1, min(len(targets), _MAX_POINTS)).astype(int)
    return targets[chosen], predicted[chosen]


def _table(found: dict[str, Errors], scored: int, examples: int) -> ReportTable:
    header = (
        "number",
        "mean absolute error",
        "root mean squared error",
        "R2",
        "mean of the targets",
        "deviation of the targets",
    )
    rows = []
    for name, each in found.items():
        r2 = "-" if not each.target_deviation else f"{each.r2:.4f}"
        mean_absolute, root_mean_squared, _, *moments = (f"{value:.4g}" for value in each)
        rows.append((name, mean_absolute, root_mean_squared, r2, *moments))
    bold = frozenset([len(rows) - 1]) if len(rows) > 1 else frozenset()
    return ReportTable(header, rows, f"Errors on {scored:,} of {examples:,} examples.", bold)
