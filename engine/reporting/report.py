"""What a person looks at: run_dir/report.html, plots/*.png and the predictions as a table.

of_run(...) and of_data(...) put a report together, `write` puts it on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

import engine
import pipelines
from engine.assembly import Parts
from engine.config import Config
from engine.feeding import cache_dir
from engine.keeping.files import replace_file
from engine.keeping.progress import Progress
from engine.reporting import history, of_data, of_predictions, of_run
from engine.reporting.page import Picture, Planned, Section, page, pictures
from engine.reporting.predictions import predictions
from engine.reporting.scores import Predictions


class Report(NamedTuple):
    """A report, ready to be written.

    title, lead: of the page.
    sections: of the page.
    tables: further files by name, CSV.
    """

    title: str
    lead: str
    sections: list[Section]
    tables: dict[str, str]

    @property
    def pictures(self) -> list[Picture]:
        """All its figures."""
        return list(pictures(self.sections))


def about_run(
    parts: Parts,
    outcome: Mapping[str, Any] | None,
    weights: str,
    best_step: int | None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Report | None:
    """A report on a run.

    Args:
      parts: of the run, with the weights that the predictions are to be by.
      outcome: what result.json holds; None: the run has not ended.
      weights: which ones they are, in words.
      best_step: the step of the best epoch so far; None: there is none.
      interrupted: asked now and then whether to give up.

    Returns:
      None when interrupted.

    Raises:
      ValueError: when the data is damaged.
      RuntimeError: when TensorFlow fails.
    """
    source, config, tables = parts.source, parts.config, {}
    held_out = {"test": source.test, "validation": source.validation}
    split = next((name for name, records in held_out.items() if records is not None), None)
    rows = history.rows(config.run.run_dir)
    sections: list[Section | None] = [
        of_run.result(outcome, weights),
        of_run.curves(rows, parts.steps_per_epoch, best_step),
    ]
    if split is not None:
        records = held_out[split]
        assert records is not None
        found = predictions(parts, records, interrupted)
        if found is None:
            return None
        names = list(source.class_names)
        tables[f"{split}_predictions.csv"] = of_predictions.table_of_predictions(found, names)
        sections.append(
            of_predictions.section(split, found, names, images_of(source, records, config))
        )
    sections += [
        of_run.steps(rows, parts.steps_per_epoch),
        of_data.section(source, cache_dir(config)),
        of_run.network(parts.model, config.network.model),
        of_run.configuration(config, _versions()),
    ]
    title, lead = (
        f"{config.network.model} on {source.name}",
        f"{config.run.run_dir}, {parts.device}",
    )
    planned = [section for section in sections if section is not None]
    return _drawn(Report(title, lead, planned, tables), config, interrupted)


def about_split(
    parts: Parts, split: str, weights: str, interrupted: Callable[[], bool] = lambda: False
) -> tuple[Report, Predictions] | None:
    """A report on the predictions on one split, and the predictions.

    Args:
      parts: of the run, with the weights that they are to be by.
      split: "validation" or "test".
      weights: which ones they are, in words.
      interrupted: asked now and then whether to give up.

    Returns:
      None when interrupted.
    """
    source, config = parts.source, parts.config
    records = {"validation": source.validation, "test": source.test}[split]
    assert records is not None, "it was evaluated"
    found = predictions(parts, records, interrupted)
    if found is None:
        return None
    names, name = list(source.class_names), records.name
    images = images_of(source, records, config)
    table = of_predictions.table_of_predictions(found, names)
    section = of_predictions.section(split, found, names, images)
    about = Report(
        f"{config.network.model} on {name} of {source.name}",
        f"{config.run.run_dir}, by {weights}",
        [section],
        {f"{split}_predictions.csv": table},
    )
    drawn = _drawn(about, config, interrupted)
    return None if drawn is None else (drawn, found)


def about_data(
    source: pipelines.Source, config: Config, interrupted: Callable[[], bool] = lambda: False
) -> Report | None:
    """A report on a data set alone.

    Args:
      source: the data set.
      config: how it is cut.
      interrupted: asked now and then whether to give up.

    Returns:
      None when interrupted.

    Raises:
      ValueError: when it is damaged.
    """
    sections = [
        of_data.section(source, cache_dir(config)),
        of_run.configuration(config, _versions()),
    ]
    lead = f"{source.name} {source.version}, as these options cut it; nothing is trained yet"
    return _drawn(Report(source.name, lead, sections, {}), config, interrupted)


def write(run_dir: str, report: Report) -> str:
    """Writes report.html, plots/ and the tables, each file whole.

    Args:
      run_dir: where to; made where there is none.
      report: that is written.

    Returns:
      One line about it for a person.

    Raises:
      OSError: when a file cannot be written.
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


def images_of(
    source: pipelines.Source, records: pipelines.Records, config: Config
) -> of_predictions.Images:
    """The images of a split by their numbers."""
    return lambda numbers: pipelines.examples_of(source, records, numbers, cache_dir(config)).images


def _drawn(report: Report, config: Config, interrupted: Callable[[], bool]) -> Report | None:
    """Draws what is planned; None when interrupted."""
    planned = [e for section in report.sections for e in section.elements if isinstance(e, Planned)]
    progress = Progress(config.keeping.progress, "drawing", len(planned), unit="figures")
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
        Section(
            section.title,
            [
                Picture(e.name, next(left), e.caption) if isinstance(e, Planned) else e
                for e in section.elements
            ],
        )
        for section in report.sections
    ]
    return report._replace(sections=sections)


def _versions() -> dict[str, str]:
    return {"tapeline": engine.__version__, "tensorflow": tf.__version__}
