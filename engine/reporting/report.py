"""Builds and writes reports: report.html, `plots/*.png` and CSV files of predictions or losses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pipelines
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.config.schema import Config
from engine.logging.progress import Progress
from engine.reporting import data_section, metric_history, run_section
from engine.reporting.html_page import ReportFigure, ReportSection, page
from engine.reporting.predictions import TaskSection, predictions, task_section
from engine.runtime.atomic_files import replace_file


class Report(NamedTuple):
    """The content of report.html, with figures, and of the CSV files beside report.html."""

    title: str
    lead: str  # sentence below the title
    sections: list[ReportSection]
    tables: dict[str, str]  # contents of the CSV files, by file name

    @property
    def pictures(self) -> list[ReportFigure]:
        """All figures of the report, in the order of the page."""
        elements = [element for section in self.sections for element in section.elements]
        return [element for element in elements if isinstance(element, ReportFigure)]


def build_run_report(
    parts: Parts,
    outcome: Mapping[str, Any] | None,
    weights: str,
    best_step: int | None,
    interrupted: Callable[[], bool],
) -> Report | None:
    """Builds the report on a run and draws the figures; returns None if interrupted.

    The predictions are those of the test split or, without a test split, of the first validation
    set. Without both, the report has no section on predictions.

    Args:
      parts: assembled run, whose model has the weights that compute the predictions.
      outcome: content of result.json; None: the run has not ended.
      weights: description of the weights, for display.
      best_step: step of the best evaluation so far; None: there is none yet.
      interrupted: returns whether to stop; called before each batch and each figure.

    Raises:
      ValueError: if the data set or metrics.jsonl is damaged.
      OSError: if metrics.jsonl or a file of the data set cannot be read.
      RuntimeError: if TensorFlow fails to compute the predictions.
      tf.errors.OpError: if TensorFlow fails otherwise, such as when a device runs out of memory.
      ImportError, AttributeError: if there is no function `parts.task.section`.
    """
    source, config = parts.source, parts.config
    tables: dict[str, str] = {}
    rows = metric_history.rows(config.run.run_dir)
    sections = [
        run_section.result(outcome, weights, parts.task.metrics),
        run_section.curves(rows, parts.task, parts.steps_per_epoch, best_step),
    ]
    split = "test" if source.test is not None else next(iter(source.validation_sets), None)
    if split is not None:
        content = _task_section(parts, split, interrupted)
        if content is None:
            return None
        tables = dict(content.tables)
        sections.append(content.section)
    sections += [
        run_section.steps(rows, parts.steps_per_epoch),
        data_section.section(source, cache_dir(config)),
        run_section.network(parts.model, config.model.model),
        run_section.configuration(config),
    ]
    title = f"{config.model.model} on {source.name}"
    lead = f"{config.run.run_dir}, {parts.device}"
    present = [section for section in sections if section is not None]
    return _drawn(Report(title, lead, present, tables), config, interrupted)


def build_split_report(
    parts: Parts, split: str, weights: str, interrupted: Callable[[], bool]
) -> tuple[Report, TaskSection] | None:
    """Builds the report on the predictions of one split and draws the figures.

    Args:
      parts: assembled run, whose model has the weights that compute the predictions.
      split: name of a held-out split of the data set.
      weights: description of the weights, for display.
      interrupted: returns whether to stop; called before each batch and each figure.

    Returns:
      The report, and the task's section of the report, which has the scores; None if interrupted.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
      RuntimeError: if TensorFlow fails to compute the predictions.
      tf.errors.OpError: if TensorFlow fails otherwise, such as when a device runs out of memory.
      ImportError, AttributeError: if there is no function `parts.task.section`.
    """
    config = parts.config
    content = _task_section(parts, split, interrupted)
    if content is None:
        return None
    name = parts.source.held_out[split].name
    title = f"{config.model.model} on {name} of {parts.source.name}"
    lead = f"{config.run.run_dir}, by {weights}"
    whole = Report(title, lead, [content.section], dict(content.tables))
    report = _drawn(whole, config, interrupted)
    return None if report is None else (report, content)


def build_data_report(
    source: pipelines.Source, config: Config, interrupted: Callable[[], bool]
) -> Report | None:
    """Builds the report on a data set and the options before training; draws the figures.

    Args:
      source: data set.
      config: options.
      interrupted: returns whether to stop; called before each figure.

    Returns:
      The report; None if interrupted.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
      tf.errors.OpError: if TensorFlow fails, such as when a device runs out of memory.
    """
    sections = [data_section.section(source, cache_dir(config)), run_section.configuration(config)]
    lead = f"{source.name} {source.version}, as these options cut it; nothing is trained yet"
    return _drawn(Report(source.name, lead, sections, {}), config, interrupted)


def write(run_dir: str, report: Report) -> str:
    """Writes report.html, `plots/*.png` and the CSV files of a report, each file atomically.

    Args:
      run_dir: directory of the report, which is created if it does not exist.
      report: report to write; figures that are not drawn yet are drawn.

    Returns:
      A line to print, with the number of figures and the paths.

    Raises:
      OSError: if a file or directory cannot be written.
    """
    plots = os.path.join(run_dir, "plots")
    os.makedirs(plots, exist_ok=True)
    for figure in report.pictures:
        replace_file(os.path.join(plots, f"{figure.name}.png"), figure.png, durable=False)
    for name, text in report.tables.items():
        replace_file(os.path.join(run_dir, name), text, durable=False)
    path = os.path.join(run_dir, "report.html")
    replace_file(path, page(report.title, report.lead, report.sections), durable=False)
    tables = "".join(f", {name}" for name in report.tables)
    count = f"{len(report.pictures)} figure" + "s" * (len(report.pictures) != 1)
    return f"report {path}: {count}, also in {plots}{tables}"


def _task_section(parts: Parts, split: str, interrupted: Callable[[], bool]) -> TaskSection | None:
    """Computes the predictions of a split; returns the task's section, None if interrupted."""
    of_split = predictions(parts, split, interrupted)
    return None if of_split is None else task_section(parts.task, of_split)


def _drawn(report: Report, config: Config, interrupted: Callable[[], bool]) -> Report | None:
    """Draws a report's figures and shows progress; returns the report, None if interrupted."""
    figures = report.pictures
    progress = Progress(config.logging.progress, "drawing", len(figures), unit="figures")
    with contextlib.closing(progress):
        for figure in figures:
            if interrupted():
                return None
            figure.png  # noqa: B018  (the first use draws it)
            progress.advance(1)
    return report
