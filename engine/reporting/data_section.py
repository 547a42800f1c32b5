"""Builds the report section on the data set: splits, statistics, examples and class balance."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import pipelines
from engine.reporting.figures import CaptionedImages, class_balance, grid, image_rows
from engine.reporting.html_page import (
    CollapsedText,
    Element,
    ReportFigure,
    ReportSection,
    ReportTable,
)

_MAX_BYTES = 64 << 20  # maximum size of the training images in the pixel statistics
_MAX_DECODED = 1 << 30  # maximum bytes of the examples of a split that are decoded for targets
_FIRST = 36  # number of examples in the figure of the first ones
_PER_CLASS = 10  # maximum number of examples of each class in a figure
_MAX_CLASSES = 30  # maximum number of classes in a figure of examples
_MAX_SIDE = 32  # maximum height and width in pixels of an image whose pixel values are listed


def section(source: pipelines.Source, cache_dir: str) -> ReportSection:
    """Returns the section on a data set: splits, statistics of the training inputs, class balance.

    The statistics are of the first training examples, whose inputs take at most 64 MiB (but at
    least 1 example). If the inputs are images with class labels, the section also shows examples
    and, of images up to 32x32, the pixel values of one. Without class labels, the section has
    statistics of the training targets in place of the class balance. Where class labels have to be
    decoded with the examples, the class balance is of the first ones, of at most 1 GiB.

    Args:
      source: data set.
      cache_dir: directory of cached examples and record indices.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
      tf.errors.OpError: if TensorFlow fails, such as when a device runs out of memory.
    """
    targets = {
        name: pipelines.read_targets(source, split, cache_dir, _MAX_DECODED)
        for name, split in source.splits.items()
    }
    example_bytes = max(pipelines.example_bytes(source.decoded[0]), 1)
    some = np.arange(min(len(source.train), max(1, _MAX_BYTES // example_bytes)))
    inputs = pipelines.read_examples(source, source.train, some, cache_dir).inputs
    elements: list[Element] = [_sizes(source)]
    if source.has_images:
        elements.append(_pixels(source, inputs))
    else:
        elements.append(_values("inputs", source, inputs, len(some)))
    if not source.has_labels:
        rows = tf.nest.map_structure(lambda leaf: leaf[: len(some)], targets["train"])
        elements.append(_values("targets", source, rows, len(some)))
        return ReportSection("Data", elements)
    names = list(source.class_names)
    counts = {
        name: np.bincount(of_split[of_split >= 0], minlength=len(names))[: len(names)]
        for name, of_split in targets.items()
    }
    if source.has_images:
        elements += _samples(source, inputs[:_FIRST], targets["train"], cache_dir)
    elements += [
        ReportFigure(
            "class_balance",
            lambda: class_balance(counts, names),
            f"How many examples of each class every split has.{_counted(source, targets)}",
        ),
        _balance(counts, names, _counted(source, targets)),
    ]
    if source.has_images and max(source.image_shape[:2]) <= _MAX_SIDE:
        elements.append(_pixel_values(inputs[0]))
    return ReportSection("Data", elements)


def _samples(
    source: pipelines.Source, first: np.ndarray, labels: np.ndarray, cache_dir: str
) -> list[Element]:
    """Returns two figures: the first training images, and training images of each class.

    Args:
      source: data set of images with class labels.
      first: the first training images, [k, H, W, C].
      labels: labels of all training examples, int [n].
      cache_dir: directory of cached examples and record indices.
    """
    names = list(source.class_names)
    figure = ReportFigure(
        "samples_train",
        lambda: grid(
            CaptionedImages(first, [_name(names, label) for label in labels[: len(first)]]),
            columns=6,
            title=f"The first {len(first)} training examples",
        ),
        "The first training examples in file order, from left to right, each with its label.",
    )
    return [figure, _samples_by_class(source, labels, names, cache_dir)]


def _name(names: list[str], label: int) -> str:
    """Returns the class name of a label; the label as text if it is not an index of `names`."""
    return names[label] if 0 <= label < len(names) else str(label)


def _sizes(source: pipelines.Source) -> ReportTable:
    if not (source.has_images and source.has_labels):
        rows = [(name, split.name, f"{len(split):,}") for name, split in source.splits.items()]
        inputs, targets = map(pipelines.described, source.decoded)
        caption = f"{source.name} {source.version}: inputs {inputs}; targets {targets}."
        return ReportTable(("split", "of the data set", "examples"), rows, caption)
    shape = source.image_shape
    images = [
        (name, split.name, f"{len(split):,}", str((len(split), *shape)), str((len(split),)))
        for name, split in source.splits.items()
    ]
    header = ("split", "of the data set", "examples", "shape of the images", "of the labels")
    caption = (
        f"{source.name} {source.version}: {source.classes} classes, images of "
        f"{'x'.join(map(str, shape))} {source.dtype}."
    )
    return ReportTable(header, images, caption)


def _values(
    kind: str, source: pipelines.Source, nest: pipelines.Nest, examples: int
) -> ReportTable:
    """Returns a table with a row per tensor: minimum, maximum, mean and standard deviation.

    Args:
      kind: "inputs" or "targets".
      source: data set, whose specs name the tensors.
      nest: inputs or targets of the first training examples, arrays [examples, ...].
      examples: number of examples in `nest`, 1 or more.
    """
    rows = []
    spec = source.decoded[0 if kind == "inputs" else 1]
    for path, leaf, values in zip(
        pipelines.leaf_paths(spec), tf.nest.flatten(spec), tf.nest.flatten(nest), strict=True
    ):
        numbers = values.astype(np.float64)
        extremes = f"{numbers.min():g}", f"{numbers.max():g}"
        moments = f"{numbers.mean():.4f}", f"{numbers.std():.4f}"
        rows.append((path or kind, pipelines.described(leaf), *extremes, *moments))
    header = ("tensor", "of an example", "least", "greatest", "mean", "standard deviation")
    which = "all" if examples == len(source.train) else f"the first {examples:,}"
    return ReportTable(header, rows, f"The {kind} of {which} training examples.")


def _pixels(source: pipelines.Source, images: np.ndarray) -> ReportTable:
    """Returns a table of the pixel values of training images [n, H, W, C], with a row per channel.

    The columns are minimum, maximum, mean, standard deviation, mean and standard deviation after
    preprocessing, and the fraction of zeros.
    """
    rows = []
    seen = source.preprocess(tf.constant(images)).numpy()  # what the network gets
    flat, flat_seen = (each.reshape(-1, images.shape[-1]).T for each in (images, seen))
    for channel, (values, scaled) in enumerate(zip(flat, flat_seen, strict=True)):
        moments = [f(dtype=np.float64) for f in (values.mean, values.std, scaled.mean, scaled.std)]
        zeros = f"{(values == 0).mean():.1%}"
        extremes = f"{values.min():g}", f"{values.max():g}"
        rows.append((str(channel), *extremes, *(f"{value:.4f}" for value in moments), zeros))
    header = (
        "channel",
        "least",
        "greatest",
        "mean",
        "standard deviation",
        "mean, as the network sees it",
        "standard deviation",
        "zeros",
    )
    which = "all" if len(images) == len(source.train) else f"the first {len(images):,}"
    return ReportTable(header, rows, f"Pixels of {which} training images.")


def _samples_by_class(
    source: pipelines.Source, labels: np.ndarray, names: list[str], cache_dir: str
) -> ReportFigure:
    """Returns a figure with a row of training images for each of the first `_MAX_CLASSES` classes.

    A row has the first images of the class, at most `_PER_CLASS`. `labels`, int [n], are those of
    all training examples.
    """
    shown = names[:_MAX_CLASSES]
    per_class = [np.flatnonzero(labels == label)[:_PER_CLASS] for label in range(len(shown))]
    indices = np.concatenate(per_class)
    images = pipelines.read_examples(source, source.train, indices, cache_dir).inputs
    ends = np.cumsum([len(of_class) for of_class in per_class])
    parts = map(CaptionedImages, np.split(images, ends[:-1]))
    which = "each class" if len(shown) == len(names) else f"the first {len(shown)} classes"
    lines = list(zip(shown, parts, strict=True))
    return ReportFigure(
        "samples_by_class",
        lambda: image_rows(
            lines,
            title=f"The first {_PER_CLASS} training examples of {which}",
            margin=0.15 + 0.075 * max(map(len, shown)),
        ),
        "Each row shows training examples of one class.",
    )


def _counted(source: pipelines.Source, labels: dict[str, np.ndarray]) -> str:
    """Returns a sentence about the splits of which only the first examples are counted, or ""."""
    parts = [
        f"the first {len(labels[name]):,} of {len(split):,} of {name}"
        for name, split in source.splits.items()
        if len(labels[name]) < len(split)
    ]
    return f" Counted are {', '.join(parts)}." if parts else ""


def _balance(counts: dict[str, np.ndarray], names: list[str], counted: str) -> ReportTable:
    columns = counts.values()
    rows = [
        (name, *(f"{count:,}" for count in of_class))
        for name, *of_class in zip(names, *columns, strict=True)
    ]
    rows.append(("all", *(f"{column.sum():,}" for column in columns)))
    return ReportTable(("class", *counts), rows, f"Examples.{counted}", frozenset([len(names)]))


def _pixel_values(image: np.ndarray) -> CollapsedText:
    """Returns the pixel values of an image [H, W, C] as text; of uint8, also divided by 255."""
    lines = []
    for channel in range(image.shape[-1]):
        if image.shape[-1] > 1:
            lines.append(f"channel {channel}")
        values = image[..., channel]
        if values.dtype == np.uint8:
            stored = [" ".join(f"{value:3d}" for value in row) for row in values]
            lines += ["stored", *stored, "", "divided by 255"]
            values = values / 255
        lines += [*(" ".join(f"{value:5.3f}" for value in row) for row in values), ""]
    return CollapsedText("The first training image in numbers", "\n".join(lines))
