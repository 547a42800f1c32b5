"""Builds the sections of the inspection's page, which are also printed on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

import pipelines
from engine.core.metrics import Metrics, brief
from engine.inspection.eager_step import EagerStep
from engine.inspection.first_batch import FirstBatch, abbreviated
from engine.inspection.overfit import Overfit
from engine.reporting.figures import (
    CaptionedImages,
    Chart,
    Line,
    charts,
    image_rows,
    pixel_limits,
)
from engine.reporting.html_page import Element, ReportFigure, ReportSection, ReportTable

_IMAGES, _ROWS = 10, 5  # maximum number of examples that are shown as images, as numbers


def findings(lines: Sequence[str]) -> ReportSection:
    """Returns the section with what the checks found, one paragraph each."""
    return ReportSection("Findings", list(lines) or ["Nothing was found."])


def data(source: pipelines.Source) -> ReportSection:
    """Returns the section on a data set: what is learned, its splits and the specs of examples."""
    elements: list[Element] = []
    if source.features:
        elements.append(f"Learned: {source.features}.")
    elements += source.notes
    splits = [(name, split.name, f"{len(split):,}") for name, split in source.splits.items()]
    caption = f"{source.name} {source.version}."
    elements.append(ReportTable(("split", "of the data set", "examples"), splits, caption))
    specs = []
    kinds = (("inputs", source.decoded[0], source.inputs), ("targets", source.targets, None))
    for kind, decoded, given in kinds:
        leaves = [tf.nest.flatten(each) for each in (decoded, decoded if given is None else given)]
        for path, one, other in zip(pipelines.leaf_paths(decoded), *leaves, strict=True):
            scale = source.preprocess.scales.get(path) if given is not None else None
            how = "-" if scale is None else scale.kind
            described = pipelines.described(one), pipelines.described(other)
            specs.append((f"{kind} {path}".strip(), described[0], how, described[1]))
    header = ("tensor", "of an example", "scaling", "as the network gets it")
    elements.append(ReportTable(header, specs))
    if source.classes:
        names = ", ".join(source.class_names[:20]) + (", ..." if source.classes > 20 else "")
        elements.append(f"{source.classes} classes: {names}.")
    return ReportSection("Data", elements)


def batch(source: pipelines.Source, found: FirstBatch, augment: str) -> ReportSection:
    """Returns the section on the first batch: decoded examples beside what the network gets.

    Args:
      source: data set.
      found: the first batch.
      augment: value of `--augment`.
    """
    how = f"augmented by {augment} and preprocessed" if augment else "preprocessed"
    count = len(found.examples.indices)
    lead = f"The {count:,} examples of the first step, as they are decoded, and {how}."
    elements: list[Element] = [lead, _values(source, found)]
    given = found.batch.inputs
    if source.has_images and getattr(given.shape, "rank", 0) == 4:
        elements.append(_pictures(source, found, how))
    else:
        elements.append(_numbers(source, found))
    return ReportSection("First batch", elements)


def _values(source: pipelines.Source, found: FirstBatch) -> ReportTable:
    """Returns a table with a row per tensor of the batch: extremes, mean and deviation."""
    rows = []
    for kind, spec, nest in (
        ("inputs", source.inputs, found.batch.inputs),
        ("targets", found.batch.targets, found.batch.targets),
    ):
        for path, leaf in zip(pipelines.leaf_paths(spec), tf.nest.flatten(nest), strict=True):
            values = tf.cast(leaf, tf.float64).numpy()
            shape = "x".join(map(str, values.shape))
            extremes = f"{values.min():g}", f"{values.max():g}"
            moments = f"{values.mean():.4f}", f"{values.std():.4f}"
            name = f"{kind} {path}".strip()
            rows.append((name, f"{shape} {leaf.dtype.name}", *extremes, *moments))
    header = ("tensor", "of the batch", "least", "greatest", "mean", "standard deviation")
    return ReportTable(header, rows)


def _pictures(source: pipelines.Source, found: FirstBatch, how: str) -> ReportFigure:
    """Returns a figure of the first images of a batch: decoded, and as the network gets them."""
    some = slice(min(_IMAGES, found.rows))
    decoded, given = found.examples.inputs[some], found.batch.inputs.numpy()[some]
    targets = found.examples.targets
    captions = []
    if source.has_labels:
        labels = [int(each) for each in targets[some]]
        names = source.class_names
        captions = [names[n] if 0 <= n < len(names) else str(n) for n in labels]
    rows = [
        ("decoded", CaptionedImages(_unit(decoded), captions)),
        ("given", CaptionedImages(_unit(given))),
    ]
    return ReportFigure(
        "first_batch",
        lambda: image_rows(rows, title="The first examples of the first step", margin=0.75),
        f"Above, images as they are decoded; below, as the network gets them: {how}. Each row is "
        "drawn from its least value, black, to its greatest, white.",
    )


def _unit(images: np.ndarray) -> np.ndarray:
    """Returns images [n, H, W, C] as float64, scaled so that their limits are 0 and 1."""
    low, high = pixel_limits(images)
    return np.clip((images.astype(np.float64) - low) / (high - low), 0, 1)


def _numbers(source: pipelines.Source, found: FirstBatch) -> ReportTable:
    """Returns a table of the first examples in numbers, with a row per example and tensor."""
    rows = []
    for index in range(min(_ROWS, found.rows)):
        for kind, decoded, given in (
            ("inputs", found.examples.inputs, found.batch.inputs),
            ("targets", found.examples.targets, found.batch.targets),
        ):
            leaves = zip(
                pipelines.leaf_paths(decoded),
                tf.nest.flatten(decoded),
                tf.nest.flatten(given),
                strict=True,
            )
            for path, one, other in leaves:
                name = f"{kind} {path}".strip()
                example = f"{found.examples.indices[index]:,}"
                rows.append(
                    (example, name, abbreviated(one[index]), abbreviated(other[index].numpy()))
                )
    header = ("example", "tensor", "decoded", "as the network gets it")
    return ReportTable(header, rows)


def forward(step: EagerStep) -> ReportSection:
    """Returns the section on the way of the batch through modules and lines of the user's code."""
    modules = [(call.name or "model", call.kind, call.outputs) for call in step.modules]
    elements: list[Element] = []
    if modules:
        elements.append(
            ReportTable(("module", "class", "outputs"), modules, "Calls of modules, in evaluation.")
        )
    lines = [(each.place, each.output, each.code) for each in step.trace.lines.values()]
    if lines:
        caption = "The last tensor that each line of the loaded files computed."
        elements.append(ReportTable(("line", "tensor", "code"), lines, caption))
    losses = step.losses.numpy()
    elements.append(
        f"Losses of the first step: mean {losses.mean():.4g}, from {losses.min():.4g} to "
        f"{losses.max():.4g}."
    )
    return ReportSection("Forward pass", elements)


def one_batch(trained: Overfit, metrics: Metrics) -> ReportSection:
    """Returns the section on the steps on one batch; `metrics` are the task's."""
    scores = brief(trained.scores, metrics)
    elements: list[Element] = [f"{trained.text[0].upper()}{trained.text[1:]}. After it: {scores}."]
    if len(trained.losses) > 1:
        line = Line(np.arange(1.0, len(trained.losses) + 1), np.array(trained.losses))
        chart = Chart("loss", "loss", {"train": line})
        elements.append(
            ReportFigure(
                "one_batch",
                lambda: charts([chart], x="step"),
                "Loss of one batch, without augmentation, at the highest learning rate.",
            )
        )
    return ReportSection("Steps on one batch", elements)
