"""Builds the report's section on predictions: confusion, scores, mistakes and calibration."""

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
from engine.reporting.html_page import Element, LazyFigure, ReportSection, Table
from engine.reporting.scores import ClassScores, Predictions

Images = Callable[[np.ndarray], np.ndarray]  # indices int [k] -> images [k, H, W, C]

_FIRST = 25
_SPELLED_OUT = 5  # number of examples whose probabilities are listed
_PAIRS, _OF_PAIR = 8, 8
_MISTAKES = 36
_MOST_COLUMNS = 20  # maximum number of classes in a table with one column per class


def section(split: str, of: Predictions, names: list[str], images: Images) -> ReportSection:
    """Returns the section on the predictions on a split.

    Args:
      split: name of the split, for example "test".
      of: predictions, of 1 or more examples.
      names: class names.
      images: function that reads images of the split by index.
    """
    counts = scores.confusion(of.labels, of.predicted, len(names))
    by_class, calibrated = scores.by_class(counts), scores.calibration(of)
    wrong = int((~of.right).sum())
    elements: list[Element] = [
        f"{int(of.right.sum()):,} of {len(of.labels):,} right, {wrong:,} wrong. Which they are "
        f"stands in {split}_predictions.csv.",
        LazyFigure(
            "confusion_counts",
            lambda: confusion_matrix(
                counts, names, by_row=False, title=f"Confusion, {split}: counts"
            ),
            "Number of examples by label (rows) and predicted class (columns).",
        ),
        LazyFigure(
            "confusion_rows",
            lambda: confusion_matrix(
                counts, names, by_row=True, title=f"Confusion, {split}: percent of the row"
            ),
            "The same, in percent of the examples of each label.",
        ),
        class_table(by_class, names),
        LazyFigure(
            "class_scores",
            lambda: class_scores(
                by_class.precision, by_class.recall, by_class.f1, names, title=f"By class, {split}"
            ),
            "Precision, recall and F1 of each class.",
        ),
        *_pairs(of, counts, names, images),
        *_mistakes(of, names, images),
        LazyFigure(
            "calibration",
            lambda: reliability(
                calibrated.edges,
                calibrated.confidence,
                calibrated.accuracy,
                calibrated.counts,
                error=calibrated.error,
                title=f"Calibration, {split}",
            ),
            "Predictions in bins by their confidence: how many of each bin are right. On the "
            "dashed line both agree, below it the network is too sure of itself. The expected "
            "calibration error is the mean distance from it, each bin by its predictions.",
        ),
        _first(split, of, names, images),
        _spelled_out(split, of, names),
    ]
    return ReportSection(f"Predictions on {split}", elements)


def class_table(by_class: ClassScores, names: list[str]) -> Table:
    """Returns a table of precision, recall, F1 and number of examples of each class.

    The last row has the mean of each score over the classes for which it is defined, and the total
    number of examples.
    """
    columns = by_class.precision, by_class.recall, by_class.f1
    rows = [
        (name, *(_percent(float(of[at])) for of in columns), f"{by_class.support[at]:,}")
        for at, name in enumerate(names)
    ]
    known = [of[~np.isnan(of)] for of in columns]
    means = (_percent(float(of.mean()) if len(of) else math.nan) for of in known)
    rows.append(("mean of the classes", *means, f"{by_class.support.sum():,}"))
    header = ("class", "precision", "recall", "F1", "examples")
    return Table(header, rows, "", frozenset([len(names)]))


def predictions_csv(of: Predictions, names: list[str]) -> str:
    """Returns a CSV with a row per example: number, label, predicted, probability, right."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("number", "label", "predicted", "probability", "right"))
    columns = of.labels.tolist(), of.predicted.tolist(), of.confidence.tolist(), of.right.tolist()
    for number, (label, predicted, confidence, right) in enumerate(zip(*columns, strict=True)):
        known = names[label] if 0 <= label < len(names) else label
        writer.writerow((number, known, names[predicted], f"{confidence:.6f}", int(right)))
    return out.getvalue()


def _pairs(of: Predictions, counts: np.ndarray, names: list[str], images: Images) -> list[Element]:
    """Returns a table and a figure of the most confused pairs; a sentence if there are none."""
    pairs = scores.confused_pairs(counts, _PAIRS)
    if not pairs:
        return ["No two classes were confused."]
    predicted, lines = of.predicted, []
    for pair in pairs:
        either = (of.labels == pair.one) & (predicted == pair.other)
        either |= (of.labels == pair.other) & (predicted == pair.one)
        numbers = np.flatnonzero(either)
        surest = numbers[np.argsort(-of.confidence[numbers], kind="stable")][:_OF_PAIR]
        captions = join_captions(
            [(names[of.labels[n]], f"as {names[predicted[n]]}") for n in surest]
        )
        name = f"{names[pair.one]} and {names[pair.other]}: {pair.times}"
        lines.append((name, CaptionedImages(images(surest), captions)))
    margin = 0.15 + 0.075 * max(len(name) for name, _ in lines)
    rows = [
        (
            f"{names[pair.one]} and {names[pair.other]}",
            f"{pair.times:,}",
            f"{names[pair.one]} as {names[pair.other]}: {pair.one_as_other:,}",
            f"{names[pair.other]} as {names[pair.one]}: {pair.other_as_one:,}",
        )
        for pair in pairs
    ]
    return [
        Table(("confused", "times", "", ""), rows),
        LazyFigure(
            "confused_pairs",
            lambda: image_rows(lines, title="The most confused pairs of classes", margin=margin),
            "For each pair the mistakes that the network was surest of: what it is, as what it "
            "was taken.",
        ),
    ]


def _mistakes(of: Predictions, names: list[str], images: Images) -> list[Element]:
    numbers = scores.most_confident_errors(of, _MISTAKES)
    if not len(numbers):
        return ["All examples are classified correctly."]
    captions = join_captions(
        [
            (names[of.labels[n]], f"as {names[of.predicted[n]]}", f"{of.confidence[n]:.0%}")
            for n in numbers
        ]
    )
    return [
        LazyFigure(
            "mistakes",
            lambda: grid(
                CaptionedImages(images(numbers), captions),
                columns=9,
                title="The most confident mistakes",
            ),
            "Label, predicted class and confidence; the most confident mistakes first.",
        )
    ]


def _first(split: str, of: Predictions, names: list[str], images: Images) -> LazyFigure:
    numbers = np.arange(min(len(of.labels), _FIRST))
    wrong = [n for n in numbers.tolist() if not of.right[n]]
    captions = join_captions(
        [(f"{names[of.predicted[n]]},", f"is {names[of.labels[n]]}") for n in numbers.tolist()]
    )
    return LazyFigure(
        "predictions",
        lambda: grid(
            CaptionedImages(images(numbers), captions, wrong),
            columns=5,
            title=f"The first {len(numbers)} of {split}: predicted, and what it is",
        ),
        "The first examples in file order, from left to right; mistakes have a frame and are bold.",
    )


def _spelled_out(split: str, of: Predictions, names: list[str]) -> Table:
    """Returns the probabilities of the first examples; with many classes, only the 5 highest."""
    shown = range(min(len(of.labels), _SPELLED_OUT))
    if len(names) > _MOST_COLUMNS:
        rows = []
        for n in shown:
            top = np.argsort(-of.probabilities[n], kind="stable")[:5]
            likeliest = ", ".join(f"{names[c]} {of.probabilities[n, c]:.4f}" for c in top)
            rows.append((str(n), names[of.labels[n]], names[of.predicted[n]], likeliest))
        header: tuple[str, ...] = ("number", "label", "predicted", "most likely classes")
    else:
        rows = [
            (
                str(n),
                names[of.labels[n]],
                names[of.predicted[n]],
                *(f"{p:.4f}" for p in of.probabilities[n]),
            )
            for n in shown
        ]
        header = ("number", "label", "predicted", *(f"p({name})" for name in names))
    return Table(header, rows, f"The first {len(shown)} of {split}, with their probabilities.")


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2%}"
