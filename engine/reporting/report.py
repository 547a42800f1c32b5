"""Builds and writes reports: run_dir/report.html, plots/*.png and the predictions as CSV.

`build_run_report`, `build_split_report` and `build_data_report` build a report; `write` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

import engine
import pipelines
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.config.schema import Config
from engine.logging.progress import Progress
from engine.reporting import data_section, metric_history, predictions_section, run_section
from engine.reporting.html_page import LazyFigure, ReportFigure, ReportSection, page, pictures
from engine.reporting.predictions import predictions
from engine.reporting.scores import Predictions
from engine.runtime.atomic_files import replace_file


class Report(NamedTuple):
    """The content of a report; `write` requires that every figure is rendered.

    Attributes:
      title, lead: heading of the page, and the sentence below it.
      sections: sections of the page.
      tables: contents of the CSV files, by file name.
    """

    title: str
    lead: str
    sections: list[ReportSection]
    tables: dict[str, str]

    @property
    def pictures(self) -> list[ReportFigure]:
        """All rendered figures of the report, in order."""
        return list(pictures(self.sections))


def build_run_report(
    parts: Parts,
    outcome: Mapping[str, Any] | None,
    weights: str,
    best_step: int | None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Report | None:
    """Builds the report on a run.

    Args:
      parts: objects of the assembled run, with the weights that compute the predictions.
      outcome: content of result.json; None: the run has not ended.
      weights: description of the weights, for display.
      best_step: step of the best epoch so far; None: no epoch is the best yet.
      interrupted: returns whether to stop; called before each batch and each figure.

    Returns:
      The report; None if interrupted.

    Raises:
      ValueError: if the data is damaged.
      RuntimeError: if TensorFlow fails.
    """
    source, config, tables = parts.source, parts.config, {}
    held_out = {"test": source.test, "validation": source.validation}
    split = next((name for name, records in held_out.items() if records is not None), None)
    rows = metric_history.rows(config.run.run_dir)
    sections: list[ReportSection | None] = [
        run_section.result(outcome, weights),
        run_section.curves(rows, parts.steps_per_epoch, best_step),
    ]
    if split is not None:
        records = held_out[split]
        assert records is not None
        found = predictions(parts, records, interrupted)
        if found is None:
            return None
        names = list(source.class_names)
        tables[f"{split}_predictions.csv"] = predictions_section.predictions_csv(found, names)
        sections.append(
            predictions_section.section(split, found, names, image_reader(source, records, config))
        )
    sections += [
        run_section.steps(rows, parts.steps_per_epoch),
        data_section.section(source, cache_dir(config)),
        run_section.network(parts.model, config.model.model),
        run_section.configuration(config, _versions()),
    ]
    title, lead = (
        f"{config.model.model} on {source.name}",
        f"{config.run.run_dir}, {parts.device}",
    )
    planned = [section for section in sections if section is not None]
    return _drawn(Report(title, lead, planned, tables), config, interrupted)


def build_split_report(
    parts: Parts, split: str, weights: str, interrupted: Callable[[], bool] = lambda: False
) -> tuple[Report, Predictions] | None:
    """Builds the report on the predictions on one split.

    Args:
      parts: objects of the assembled run, with the weights that compute the predictions.
      split: "validation" or "test".
      weights: description of the weights, for display.
      interrupted: returns whether to stop; called before each batch and each figure.

    Returns:
      The report and the predictions; None if interrupted.
    """
    source, config = parts.source, parts.config
    records = {"validation": source.validation, "test": source.test}[split]
    assert records is not None, "it was evaluated"
    found = predictions(parts, records, interrupted)
    if found is None:
        return None
    names, name = list(source.class_names), records.name
    images = image_reader(source, records, config)
    table = predictions_section.predictions_csv(found, names)
    section = predictions_section.section(split, found, names, images)
    about = Report(
        f"{config.model.model} on {name} of {source.name}",
        f"{config.run.run_dir}, by {weights}",
        [section],
        {f"{split}_predictions.csv": table},
    )
    drawn = _drawn(about, config, interrupted)
    return None if drawn is None else (drawn, found)


def build_data_report(
    source: pipelines.Source, config: Config, interrupted: Callable[[], bool] = lambda: False
) -> Report | None:
    """Builds the report on a data set alone.

    Args:
      source: data set.
      config: options, including those that define the splits.
      interrupted: returns whether to stop; called before each figure.

    Returns:
      The report; None if interrupted.

    Raises:
      ValueError: if the data set is damaged.
    """
    sections = [
        data_section.section(source, cache_dir(config)),
        run_section.configuration(config, _versions()),
    ]
    lead = f"{source.name} {source.version}, as these options cut it; nothing is trained yet"
    return _drawn(Report(source.name, lead, sections, {}), config, interrupted)


def write(run_dir: str, report: Report) -> str:
    """Writes report.html, plots/ and the CSV files; replaces each file atomically.

    Args:
      run_dir: output directory; it is created if it does not exist.
      report: report to write, with rendered figures.

    Returns:
      A line for the console with the paths.

    Raises:
      OSError: if a file cannot be written.
    """
    plots = os.path.join(run_dir, "plots")
    os.makedirs(plots, exist_ok=True)
    for picture in report.pictures:
        replace_file(os.path.join(plots, f"{picture.name}.png"), picture.png, durable=False)
    for name, text in report.tables.items():
        replace_file(os.path.join(run_dir, name), text, durable=False)
    path = os.path.join(run_dir, "report.html")
    replace_file(path, page(report.title, report.lead, report.sections), durable=False)
    tables = "".join(f", {name}" for name in report.tables)
    return f"report {path}: {len(report.pictures)} figures, also in {plots}{tables}"


def image_reader(
    source: pipelines.Source, records: pipelines.DataSplit, config: Config
) -> predictions_section.Images:
    """Returns a function that reads images of a split by index."""
    return lambda numbers: (
        pipelines.read_examples(source, records, numbers, cache_dir(config)).images
    )


def _drawn(report: Report, config: Config, interrupted: Callable[[], bool]) -> Report | None:
    """Draws the lazy figures; returns the report with rendered figures, or None if interrupted."""
    planned = [
        e for section in report.sections for e in section.elements if isinstance(e, LazyFigure)
    ]
    progress = Progress(config.logging.progress, "drawing", len(planned), unit="figures")
    pngs = []
    try:
        for each in planned:
            if interrupted():
                return None
            pngs.append(each.draw())
            progress.advance(1)
    finally:
        progress.close()
    left = iter(pngs)
    sections = [
        ReportSection(
            section.title,
            [
                ReportFigure(e.name, next(left), e.caption) if isinstance(e, LazyFigure) else e
                for e in section.elements
            ],
        )
        for section in report.sections
    ]
    return report._replace(sections=sections)


def _versions() -> dict[str, str]:
    return {"tapeline": engine.__version__, "tensorflow": tf.__version__}
