"""Report section on the predictions of any task: loss quantiles, and the largest losses."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from engine.reporting.figures import CaptionedImages, grid
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable
from engine.reporting.predictions import SplitPredictions, TaskSection

_WORST = 25  # number of examples of the largest losses that are shown
_FEW = 8  # maximum number of values of a target or prediction that are shown


def section(of: SplitPredictions) -> TaskSection:
    """Returns the section with the quantiles and the largest of the losses, and a CSV of losses.

    Raises:
      ValueError: if the inputs are images and the data set is damaged.
      OSError: if the inputs are images and a file of the data set cannot be read.
    """
    title = f"Predictions on {of.split}"
    elements = [_quantiles(of), *largest_losses(of)]
    return TaskSection(ReportSection(title, elements), {f"{of.split}_losses.csv": losses_csv(of)})


def largest_losses(of: SplitPredictions) -> list[Element]:
    """Returns a table of the 25 examples with the largest losses; for images, also a figure.

    A loss of nan counts as the largest.

    Raises:
      ValueError: if the inputs are images and the data set is damaged.
      OSError: if the inputs are images and a file of the data set cannot be read.
    """
    order = np.argsort(-np.nan_to_num(of.losses, nan=np.inf), kind="stable")[:_WORST]
    elements: list[Element] = [_table(of, order)]
    if of.source.has_images:
        images = of.inputs(order)
        captions = [f"{index}: {of.losses[index]:.3g}" for index in order]
        elements.append(
            ReportFigure(
                "largest_losses",
                lambda: grid(
                    CaptionedImages(images, captions), columns=5, title="The largest losses"
                ),
                "The examples of the largest losses, with their numbers and losses.",
            )
        )
    return elements


def write_csv(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Returns the header and the rows as the text of a CSV file."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _quantiles(of: SplitPredictions) -> ReportTable:
    """Returns a table of minimum, quartiles, maximum and mean of the finite losses.

    Without finite losses, the cells are `-`.
    """
    finite = of.losses[np.isfinite(of.losses)].astype(np.float64)
    header = ("least", "lower quartile", "median", "upper quartile", "greatest", "mean")
    cells = ["-"] * len(header)
    if len(finite):
        values = *np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]), finite.mean()
        cells = [f"{value:.4g}" for value in values]
    caption = f"Losses of {len(of.losses):,} of {of.examples:,} examples."
    if others := len(of.losses) - len(finite):
        caption += f" {others:,} are not finite and are left out here."
    return ReportTable(header, [cells], caption)


def _table(of: SplitPredictions, order: np.ndarray) -> ReportTable:
    """Returns a table with a row for each index in `order`, int [k]: loss, targets, predictions.

    Targets and predictions of more than `_FEW` values per example are omitted.
    """
    targets = tf.nest.flatten(of.targets)
    names = ["targets"] if len(targets) == 1 else [f"targets {i}" for i in range(len(targets))]
    columns = [*zip(names, targets, strict=True), *of.predicted.items()]
    shown = [(name, each) for name, each in columns if each[0].size <= _FEW]
    rows = [
        (str(index), f"{of.losses[index]:.4g}", *(_text(each[index]) for _, each in shown))
        for index in order
    ]
    header = ("number", "loss", *(name for name, _ in shown))
    return ReportTable(header, rows, "The largest losses.")


def _text(value: np.ndarray) -> str:
    return " ".join(
        f"{number:.4g}" if isinstance(number, float) else str(number)
        for number in np.ravel(value).tolist()
    )


def losses_csv(of: SplitPredictions) -> str:
    """Returns the text of a CSV file with the index and the loss of each predicted example."""
    rows = ((index, f"{loss:.6g}") for index, loss in enumerate(of.losses.tolist()))
    return write_csv(("number", "loss"), rows)
