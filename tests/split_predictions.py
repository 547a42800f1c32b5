"""Artificial predictions of a split, for tests of report sections."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from engine.reporting.html_page import ReportTable, page
from engine.reporting.predictions import SplitPredictions, TaskSection, task_section
from engine.tasks.task import Task
from tests.nested import source_of


def split_predictions(
    task: Task,
    targets: np.ndarray,
    losses: Any = None,
    *,
    inputs: Any = None,
    names: tuple[str, ...] = (),
    **predicted: np.ndarray,
) -> SplitPredictions:
    """Returns predictions of a split "test" with the given targets.

    Args:
      task: the task that made the predictions.
      targets: targets, [examples, ...].
      losses: loss of each example; None: random.
      inputs: inputs, [examples, ...]; None: random vectors of five elements.
      names: class names.
      **predicted: predicted arrays by name, each [examples, ...].
    """
    count = len(targets)
    random = np.random.default_rng(0)
    inputs = random.random((count, 5)).astype(np.float32) if inputs is None else inputs
    losses = random.random(count) if losses is None else losses
    source = dataclasses.replace(source_of(inputs, targets), class_names=names)
    return SplitPredictions(
        split="test",
        predicted=predicted,
        targets=targets,
        losses=np.asarray(losses, np.float32),
        examples=count,
        source=source,
        inputs=lambda indices: inputs[indices],
        task=task,
    )


def drawn_section(of: SplitPredictions) -> TaskSection:
    """Returns the task's report section for predictions, and asserts that it renders to HTML."""
    found = task_section(of.task, of)
    text = page("t", "l", [found.section])
    assert text.count("<h2>") == 1
    return found


def first_table(of: TaskSection) -> list[list[str]]:
    """Returns the rows of the first table in a report section."""
    table = next(each for each in of.section.elements if isinstance(each, ReportTable))
    return [list(row) for row in table.rows]


def figure_names(of: TaskSection) -> list[str]:
    """Returns the names of the figures in a report section."""
    return [each.name for each in of.section.elements if hasattr(each, "png")]
