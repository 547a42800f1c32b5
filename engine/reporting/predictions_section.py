"""Builds the report section on predicted classes: confusion, scores, mistakes, calibration."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

import numpy as np

from engine.reporting import scores
from engine.reporting.figures import (
    CaptionedImages,
    class_scores,
    confusion_matrix,
    grid,
    image_rows,
    join_captions,
    reliability,
)
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable
from engine.reporting.scores import ClassScores, Predictions

Images = Callable[[np.ndarray], np.ndarray]  # indices int [k] -> images [k, H, W, C]

_FIRST = 25  # number of examples in the figure of predictions
_WITH_PROBABILITIES = 5  # number of examples whose probabilities are listed
_PAIRS, _PER_PAIR = 8, 8  # maximum numbers of confused pairs, and of examples of each
_MISTAKES = 36  # maximum number of examples in the figure of mistakes
_MAX_COLUMNS = 20  # maximum number of classes in a table with one column per class


def section(split: str, of: Predictions, names: list[str], images: Images | None) -> ReportSection:
    """Returns the report section on the predicted classes of a split.

    Args:
      split: name of the split, for titles and file names.
      of: predictions of 1 or more examples; all labels are indices of `names`.
      names: class names.
      images: maps indices of predictions, int [k], to images [k, H, W, C]; None: the inputs are
        not images, and the section shows none. The exceptions of `images` are not caught.
    """
    counts = scores.confusion(of.labels, of.predicted, len(names))
    by_class, calibrated = scores.by_class(counts), scores.calibration(of)
    correct = int(of.correct.sum())
    examples = len(of.labels)
    elements: list[Element] = [
        f"{correct:,} of {examples:,} are correct, {examples - correct:,} are not; "
        f"{split}_predictions.csv lists them all.",
        ReportFigure(
            "confusion_counts",
            lambda: confusion_matrix(
                counts, names, by_row=False, title=f"Confusion, {split}: counts"
            ),
            "Number of examples by label (rows) and predicted class (columns).",
        ),
        ReportFigure(
            "confusion_rows",
            lambda: confusion_matrix(
                counts, names, by_row=True, title=f"Confusion, {split}: percent of the row"
            ),
            "The same, in percent of the examples of each label.",
        ),
        class_table(by_class, names),
        ReportFigure(
            "class_scores",
            lambda: class_scores(*by_class[:3], names, title=f"By class, {split}"),
            "Precision, recall and F1 of each class.",
        ),
        *_pairs(of, counts, names, images),
        _mistakes(of, names, images),
        ReportFigure(
            "calibration",
            lambda: reliability(
                *calibrated[:4], error=calibrated.error, title=f"Calibration, {split}"
            ),
            "Predictions in bins by their confidence: how many of each bin are right. On the "
            "dashed line both agree, below it the network is too sure of itself. The expected "
            "calibration error is the mean distance from it, each bin by its predictions.",
        ),
        *([_first(split, of, names, images)] if images else []),
        _probabilities(split, of, names),
    ]
    return ReportSection(f"Predictions on {split}", elements)


def class_table(by_class: ClassScores, names: list[str]) -> ReportTable:
    """Returns a table of precision, recall, F1 and number of examples of each class.

    The last row has the mean of each score over the classes for which it is defined, and the total
    number of examples.
    """
    columns = by_class[:3]
    rows = [
        (name, *map(percent, values), f"{support:,}")
        for name, *values, support in zip(names, *by_class, strict=True)
    ]
    known = [column[~np.isnan(column)] for column in columns]
    means = [percent(column.mean() if len(column) else math.nan) for column in known]
    rows.append(("mean of the classes", *means, f"{by_class.support.sum():,}"))
    header = ("class", "precision", "recall", "F1", "examples")
    return ReportTable(header, rows, bold=frozenset([len(names)]))


def predictions_csv(of: Predictions, names: list[str]) -> str:
    """Returns the text of a CSV file with a row for each prediction.

    The columns are the index, the label, the predicted class, the probability of the predicted
    class, and 1 if the prediction is correct, else 0. A label that is not an index of `names`, such
    as an ignored one, is written as a number.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("number", "label", "predicted", "probability", "right"))
    columns = of.labels.tolist(), of.predicted, of.confidence, of.correct
    for number, (label, predicted, confidence, correct) in enumerate(zip(*columns, strict=True)):
        known = names[label] if 0 <= label < len(names) else label
        writer.writerow((number, known, names[predicted], f"{confidence:.6f}", int(correct)))
    return out.getvalue()


def _pairs(
    of: Predictions, counts: np.ndarray, names: list[str], images: Images | None
) -> list[Element]:
    """Returns a table of the most confused pairs of classes and, with `images`, a figure.

    If no two classes are confused, returns a sentence that says so.
    """
    pairs = scores.confused_pairs(counts, _PAIRS)
    if not pairs:
        return ["No two classes were confused."]
    rows, lines = [], []
    for pair in pairs:
        either = (of.labels == pair.one) & (of.predicted == pair.other)
        either |= (of.labels == pair.other) & (of.predicted == pair.one)
        mistakes = np.flatnonzero(either)
        surest = mistakes[np.argsort(-of.confidence[mistakes], kind="stable")][:_PER_PAIR]
        captions = join_captions([_caption(of, names, index) for index in surest])
        one, other = names[pair.one], names[pair.other]
        if images:
            tiles = CaptionedImages(images(surest), captions)
            lines.append((f"{one} and {other}: {pair.times}", tiles))
        as_other, as_one = f"{pair.one_as_other:,}", f"{pair.other_as_one:,}"
        rows.append(
            (
                f"{one} and {other}",
                f"{pair.times:,}",
                f"{one} as {other}: {as_other}",
                f"{other} as {one}: {as_one}",
            )
        )
    table = ReportTable(("confused", "times", "", ""), rows)
    if not images:
        return [table]
    margin = 0.15 + 0.075 * max(len(name) for name, _ in lines)
    return [
        table,
        ReportFigure(
            "confused_pairs",
            lambda: image_rows(lines, title="The most confused pairs of classes", margin=margin),
            "For each pair the mistakes that the network was surest of: what it is, as what it "
            "was taken.",
        ),
    ]


def _mistakes(of: Predictions, names: list[str], images: Images | None) -> Element:
    indices = scores.most_confident_errors(of, _MISTAKES)
    if not len(indices):
        return "All examples are classified correctly."
    if not images:
        rows = [
            (str(index), *_caption(of, names, index), f"{of.confidence[index]:.0%}")
            for index in indices
        ]
        header = ("number", "label", "predicted", "confidence")
        return ReportTable(header, rows, "The most confident mistakes.")
    captions = join_captions(
        [(*_caption(of, names, index), f"{of.confidence[index]:.0%}") for index in indices]
    )
    return ReportFigure(
        "mistakes",
        lambda: grid(
            CaptionedImages(images(indices), captions),
            columns=9,
            title="The most confident mistakes",
        ),
        "Label, predicted class and confidence; the most confident mistakes first.",
    )


def _caption(of: Predictions, names: list[str], index: int) -> tuple[str, str]:
    return names[of.labels[index]], f"as {names[of.predicted[index]]}"


def _first(split: str, of: Predictions, names: list[str], images: Images) -> ReportFigure:
    indices = np.arange(min(len(of.labels), _FIRST))
    captions = join_captions(
        [(f"{names[of.predicted[n]]},", f"is {names[of.labels[n]]}") for n in indices]
    )
    mistakes = np.flatnonzero(~of.correct[indices])
    return ReportFigure(
        "predictions",
        lambda: grid(
            CaptionedImages(images(indices), captions, mistakes),
            columns=5,
            title=f"The first {len(indices)} of {split}: predicted, and what it is",
        ),
        "The first examples in file order, from left to right; mistakes have a frame and are bold.",
    )


def _probabilities(split: str, of: Predictions, names: list[str]) -> ReportTable:
    """Returns a table with the class probabilities of the first `_WITH_PROBABILITIES` examples.

    With more than `_MAX_COLUMNS` classes, only the 5 highest probabilities of each example
    are listed.
    """
    many = len(names) > _MAX_COLUMNS
    columns = ["most likely classes"] if many else [f"p({name})" for name in names]
    rows = []
    for index, values in enumerate(of.probabilities[:_WITH_PROBABILITIES]):
        cells = [f"{value:.4f}" for value in values]
        if many:
            top = np.argsort(-values, kind="stable")[:5]
            cells = [", ".join(f"{names[label]} {cells[label]}" for label in top)]
        label, predicted = names[of.labels[index]], names[of.predicted[index]]
        rows.append((str(index), label, predicted, *cells))
    caption = f"The first {len(rows)} of {split}, with their probabilities."
    return ReportTable(("number", "label", "predicted", *columns), rows, caption)


def percent(fraction: float) -> str:
    """Formats a fraction as a percentage, such as `98.97%`; returns `-` for nan."""
    return "-" if math.isnan(fraction) else f"{fraction:.2%}"
