"""Builds the report's section on the data set: shapes, pixels, class balance and examples."""

from __future__ import annotations

import numpy as np

import pipelines
from engine.reporting.figures import CaptionedImages, class_balance, grid, image_rows
from engine.reporting.html_page import CollapsedText, Element, LazyFigure, ReportSection, Table

_LOOKED_AT = 64 << 20  # 64 MiB: maximum size of the decoded training images for pixel statistics
_FIRST = 36
_WAYS = 10  # maximum number of examples of each class in a figure
_MOST_LINES = 30  # maximum number of classes in a figure of examples
_SMALL = 32  # maximum height and width in pixels of an image whose pixel values are listed


def section(source: pipelines.Source, cache_dir: str) -> ReportSection:
    """Returns the section on a data set; requires no model.

    Args:
      source: data set with its splits.
      cache_dir: directory that stores decoded examples and the record index between runs.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
    """
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    records = {name: split for name, split in splits.items() if split is not None}
    labels = {
        name: pipelines.read_labels(source, split, cache_dir) for name, split in records.items()
    }
    names = list(source.class_names)
    counts = {name: _counts(of, len(names)) for name, of in labels.items()}
    sides = source.image_shape
    looked_at = max(1, _LOOKED_AT // (int(np.prod(sides)) * np.dtype(source.dtype).itemsize))
    some = np.arange(min(len(source.train), looked_at))
    images = pipelines.read_examples(source, source.train, some, cache_dir).images
    first = pipelines.read_examples(source, source.train, some[:_FIRST], cache_dir)
    elements: list[Element] = [
        _sizes(source, records),
        _pixels(source, images),
        LazyFigure(
            "samples_train",
            lambda: grid(
                CaptionedImages(first.images, [names[label] for label in first.labels]),
                columns=6,
                title=f"The first {len(some[:_FIRST])} training examples",
            ),
            "The first training examples in file order, from left to right, each with its label.",
        ),
        _ways(source, labels["train"], names, cache_dir),
        LazyFigure(
            "class_balance",
            lambda: class_balance(counts, names),
            "How many examples of each class every split has.",
        ),
        _balance(counts, names),
    ]
    if max(sides[:2]) <= _SMALL:
        elements.append(_first_numbers(first))
    return ReportSection("Data", elements)


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=classes)


def _sizes(source: pipelines.Source, records: dict[str, pipelines.DataSplit]) -> Table:
    shape = source.image_shape
    rows = [
        (split, of.name, f"{len(of):,}", str((len(of), *shape)), str((len(of),)))
        for split, of in records.items()
    ]
    header = ("split", "of the data set", "examples", "shape of the images", "of the labels")
    caption = (
        f"{source.name} {source.version}: {source.classes} classes, images of "
        f"{'x'.join(map(str, shape))} {source.dtype}."
    )
    return Table(header, rows, caption)


def _pixels(source: pipelines.Source, images: np.ndarray) -> Table:
    """Returns pixel statistics per channel: range, mean, standard deviation, fraction of zeros."""
    values = images.reshape(-1, images.shape[-1])
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    rows = []
    for channel in range(values.shape[1]):
        of = values[:, channel]
        mean, deviation = float(of.mean(dtype=np.float64)), float(of.std(dtype=np.float64))
        rows.append(
            (
                str(channel),
                f"{float(of.min()):g}",
                f"{float(of.max()):g}",
                f"{mean:.4f}",
                f"{deviation:.4f}",
                f"{mean / scale:.4f}",
                f"{deviation / scale:.4f}",
                f"{float((of == 0).mean()):.1%}",
            )
        )
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
    return Table(header, rows, f"Pixels of {which} training images.")


def _ways(
    source: pipelines.Source, labels: np.ndarray, names: list[str], cache_dir: str
) -> LazyFigure:
    """Returns a figure with a row of training examples for each of up to `_MOST_LINES` classes."""
    shown = range(min(len(names), _MOST_LINES))
    of_class = [np.flatnonzero(labels == label)[:_WAYS] for label in shown]
    numbers = np.concatenate(of_class)
    images = pipelines.read_examples(source, source.train, numbers, cache_dir).images
    ends = np.cumsum([len(each) for each in of_class])
    lines = [
        (names[label], CaptionedImages(part))
        for label, part in zip(shown, np.split(images, ends[:-1]), strict=True)
    ]
    which = "each class" if len(shown) == len(names) else f"the first {len(shown)} classes"
    return LazyFigure(
        "samples_by_class",
        lambda: image_rows(
            lines,
            title=f"The first {_WAYS} training examples of {which}",
            margin=0.15 + 0.075 * max(len(name) for name, _ in lines),
        ),
        "Each row shows training examples of one class.",
    )


def _balance(counts: dict[str, np.ndarray], names: list[str]) -> Table:
    rows = [(name, *(f"{of[at]:,}" for of in counts.values())) for at, name in enumerate(names)]
    rows.append(("all", *(f"{of.sum():,}" for of in counts.values())))
    return Table(("class", *counts), rows, "Examples.", frozenset([len(names)]))


def _first_numbers(first: pipelines.Examples) -> CollapsedText:
    """Returns the pixels of the first training image, as stored and as the network scales them."""
    image = first.images[0]
    text = []
    for channel in range(image.shape[-1]):
        if image.shape[-1] > 1:
            text.append(f"channel {channel}")
        stored = image[..., channel]
        if stored.dtype == np.uint8:
            text += ["stored", *(" ".join(f"{value:3d}" for value in row) for row in stored), ""]
            text += ["divided by 255"]
            stored = stored / 255
        text += [*(" ".join(f"{value:5.3f}" for value in row) for row in stored), ""]
    return CollapsedText("The first training image in numbers", "\n".join(text))
