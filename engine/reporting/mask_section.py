"""Report section on segmentation: scores of each class, and masks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engine.reporting import html_page, scores
from engine.reporting.any_section import write_csv
from engine.reporting.figures import MaskedExample, masks
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable
from engine.reporting.predictions import SplitPredictions, TaskSection
from engine.reporting.predictions_section import percent

_MAX_ROWS = 30  # maximum number of classes in a table on a terminal
_SHOWN = 8  # number of examples in a figure
_CHUNK = 1 << 22  # about how many positions are counted at once


class Counts(NamedTuple):
    """Counts of positions by example and class, int64 [n, classes] each."""

    hits: np.ndarray  # that have the class and are predicted as it
    labels: np.ndarray  # that have the class
    predictions: np.ndarray  # that are predicted as it


class MaskScores(NamedTuple):
    """Scores of predicted masks; nan where the denominator is 0."""

    counts: scores.ClassScores  # of each class; the support is in positions
    iou: np.ndarray  # intersection over union of each class, float64 [classes]
    by_example: np.ndarray  # mean IoU over the classes in an example, float64 [n]


def section(of: SplitPredictions) -> TaskSection:
    """Returns the section on predicted masks, the scores of each class, and a CSV of examples.

    Positions do not count if the label is negative, or if the task ignores the label. The section
    shows masks if they have two dimensions, over the inputs if these are images with 1 or 3
    channels.
    """
    predicted = of.predicted["mask"]
    ignored = of.task.ignore_label
    target = of.targets.reshape(predicted.shape)
    names = _names(of, target, predicted)
    found = mask_scores(target, predicted, len(names), ignored)
    table = class_table(found, names)
    total = int(found.counts.support.sum())
    correct = np.nansum(found.counts.recall * found.counts.support)
    share = percent(correct / total if total else math.nan)
    elements: list[Element] = [
        f"{share} of {total:,} positions in {len(target):,} of {of.examples:,} examples are "
        f"correct; {of.split}_losses.csv has the scores of each example.",
        table,
    ]
    if predicted.ndim == 3:
        # Examples without a position that counts are the last; a stable sort keeps file order.
        worst = np.argsort(found.by_example, kind="stable")[:_SHOWN]
        first = np.arange(min(len(target), _SHOWN))
        elements += [
            _figure(of, "masks", f"The first {len(first)} of {of.split}", first, found, names),
            _figure(of, "worst_masks", f"The worst of {of.split}", worst, found, names),
        ]
    keys = ("iou", "precision", "recall", "positions")
    columns = (found.iou, found.counts.precision, found.counts.recall, found.counts.support)
    values = {
        "by_class": {
            name: dict(zip(keys, row, strict=True))
            for name, *row in zip(names, *(column.tolist() for column in columns), strict=True)
        }
    }
    rows = (
        (index, f"{loss:.6g}", f"{iou:.6f}")
        for index, (loss, iou) in enumerate(
            zip(of.losses.tolist(), found.by_example.tolist(), strict=True)
        )
    )
    return TaskSection(
        ReportSection(f"Predictions on {of.split}", elements),
        {f"{of.split}_losses.csv": write_csv(("number", "loss", "mean_iou"), rows)},
        values,
        html_page.format_table(table) if len(names) <= _MAX_ROWS else "",
    )


def mask_scores(
    target: np.ndarray, predicted: np.ndarray, classes: int, ignored: int | None
) -> MaskScores:
    """Returns the scores of predicted masks of 1 or more examples.

    The mean IoU of an example is over the classes that occur in the target or in the prediction of
    the example, at positions that count; nan if no position counts.

    Args:
      target: label at each position, int [n, ...]. A position with a negative label does not count.
      predicted: predicted class at each position, int [n, ...].
      classes: number of classes, more than the largest label and the largest predicted class.
      ignored: label of positions that do not count; None: there is no such label.
    """
    examples, positions = len(target), max(1, math.prod(target.shape[1:]))
    rows = max(1, _CHUNK // max(positions, classes))
    totals, means = np.zeros((3, classes), np.int64), []
    for start in range(0, examples, rows):
        part = slice(start, start + rows)
        counts = _counts(target[part], predicted[part], classes, ignored)
        totals += np.stack([each.sum(axis=0) for each in counts])
        union = counts.labels + counts.predictions - counts.hits
        iou = np.divide(counts.hits, union, out=np.zeros(union.shape), where=union > 0)
        present = (union > 0).sum(axis=1)
        mean = np.full(len(present), np.nan)
        means.append(np.divide(iou.sum(axis=1), present, out=mean, where=present > 0))
    hits, labels, predictions = totals
    union = labels + predictions - hits
    iou = np.divide(hits, union, out=np.full(classes, np.nan), where=union > 0)
    return MaskScores(scores.of_counts(hits, labels, predictions), iou, np.concatenate(means))


def class_table(found: MaskScores, names: list[str]) -> ReportTable:
    """Returns a table of IoU, fraction of the positions, precision and recall of each class.

    The last row has the means of IoU, precision and recall over the classes for which each is
    defined.
    """
    support = found.counts.support
    share = support / support.sum() if support.any() else np.full(len(names), np.nan)
    columns = (found.iou, share, found.counts.precision, found.counts.recall)
    rows = [(name, *map(percent, values)) for name, *values in zip(names, *columns, strict=True)]
    known = [column[~np.isnan(column)] for column in columns]
    iou, _, *others = (percent(each.mean() if len(each) else math.nan) for each in known)
    rows.append(("mean of the classes", iou, "", *others))
    header = ("class", "IoU", "fraction of the positions", "precision", "recall")
    return ReportTable(header, rows, bold=frozenset([len(names)]))


def _counts(target: np.ndarray, predicted: np.ndarray, classes: int, ignored: int | None) -> Counts:
    """Returns the counts of positions of each class in each example; see `mask_scores`."""
    rows = len(target)
    target = target.reshape(rows, -1).astype(np.int64)
    predicted = predicted.reshape(rows, -1)
    valid = _valid(target, ignored)
    row = np.broadcast_to(np.arange(rows)[:, None], target.shape)

    def count(labels: np.ndarray, where: np.ndarray) -> np.ndarray:
        pairs = row[where] * classes + labels[where]
        return np.bincount(pairs, minlength=rows * classes).reshape(rows, classes)

    return Counts(
        count(target, valid & (target == predicted)), count(target, valid), count(predicted, valid)
    )


def _valid(target: np.ndarray, ignored: int | None) -> np.ndarray:
    """Returns whether each position counts, bool: its label is not negative and not `ignored`."""
    valid = target >= 0
    return valid if ignored is None else valid & (target != ignored)


def _names(of: SplitPredictions, target: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Returns the class names of the data set, then the indices of classes without a name.

    The indices, as text, go up to the largest class at counted positions of `target` or anywhere
    in `predicted`.
    """
    label = target.max(initial=0, where=_valid(target, of.task.ignore_label))
    largest = max(int(label), int(predicted.max(initial=0)))
    names = of.source.class_names
    return [*names, *map(str, range(len(names), largest + 1))]


def _figure(
    of: SplitPredictions,
    name: str,
    title: str,
    indices: np.ndarray,
    found: MaskScores,
    names: list[str],
) -> ReportFigure:
    """Returns a figure of the target and predicted masks of the examples at `indices`, int [k].

    The masks are drawn over the inputs if these are images with 1 or 3 channels.
    """
    with_images = of.source.has_images and of.source.image_shape[-1] in (1, 3)

    def draw() -> bytes:
        target = of.targets[indices].reshape(of.predicted["mask"][indices].shape).astype(np.int64)
        target = np.where(_valid(target, of.task.ignore_label), target, -1)
        images = of.inputs(indices) if with_images else [None] * len(indices)
        examples = [
            MaskedExample(
                f"{index}: mean IoU {percent(found.by_example[index])}", image, mask, predicted
            )
            for index, image, mask, predicted in zip(
                indices, images, target, of.predicted["mask"][indices], strict=True
            )
        ]
        return masks(examples, names, title=title)

    return ReportFigure(
        name,
        draw,
        "Target and predicted masks of classes, and black where they differ; positions in light "
        "grey do not count. The mean IoU is over the classes in an example.",
    )
