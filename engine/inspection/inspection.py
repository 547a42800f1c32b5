"""Inspects a configuration: reads a batch, takes its first step eagerly, and trains on it.

Nothing is written: the result is the sections of a page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import pipelines
from engine.assembly import data, factories
from engine.assembly.parts import Parts, assemble
from engine.config.schema import Config, replaced
from engine.distributed import strategies
from engine.inspection import checks, cost, parameters, sections
from engine.inspection.eager_step import eager_step
from engine.inspection.first_batch import FirstBatch, first_batch
from engine.inspection.overfit import Overfit, overfit
from engine.logging.progress import Progress
from engine.reporting.html_page import ReportSection


class Inspection(NamedTuple):
    """What an inspection found."""

    title: str
    lead: str  # sentence below the title
    findings: list[str]  # a line for each thing that is wrong
    sections: list[ReportSection]


def inspect(config: Config, interrupted: Callable[[], bool]) -> Inspection | None:
    """Inspects a configuration, on one device; returns None if interrupted.

    Sets TensorFlow's threads and devices, so TensorFlow should not have run any operation before.

    Args:
      config: options of a run.
      interrupted: returns whether to stop; called before each part and each training step.

    Raises:
      ValueError: for invalid input, as in training, unless the first step shows it.
      OSError: if a file of the data set cannot be read.
      RuntimeError: if TensorFlow fails.
      Exception: any that the user's model or task raises.
    """
    devices = config.devices
    strategies.set_threads(devices.intra_op_threads, devices.inter_op_threads)
    topologies = strategies.topologies(devices)
    replicas = topologies.configured.replicas
    source = pipelines.fitted(data.open_source(config), data.cache_dir(config))
    task = factories.build_task(config, source)
    batch = first_batch(config, source, _local_rows(config, replicas))
    small = pipelines.source_of(source, batch.examples)
    parts = assemble(_of_one_batch(config), task, source=small, devices=topologies.one)
    with contextlib.closing(parts):
        if interrupted():
            return None
        return _inspected(config, source, parts, batch, replicas, interrupted)


def _local_rows(config: Config, replicas: int) -> int:
    """Returns the number of rows of a micro-batch on a device."""
    return -(-config.training.global_batch_size // (config.training.accumulate * replicas))


def _of_one_batch(config: Config) -> Config:
    """Returns the options for steps on one batch: no augmentation, the highest learning rate."""
    return replaced(
        config,
        augment="",
        feed="resident",
        schedule="constant",
        warmup_steps=0,
        train_steps=max(1, config.inspection.inspect_steps),
        shards=0,
        progress="off",
    )


def _inspected(
    config: Config,
    source: pipelines.Source,
    parts: Parts,
    batch: FirstBatch,
    replicas: int,
    interrupted: Callable[[], bool],
) -> Inspection | None:
    """Returns the inspection of an assembled run; None if interrupted. Arguments as `inspect`.

    Args:
      config: options of the run to inspect.
      source: its data set.
      parts: run on the examples of its first batch.
      batch: its first batch.
      replicas: number of its devices.
      interrupted: returns whether to stop.
    """
    step = eager_step(parts, batch.batch)
    if interrupted():
        return None
    found = [
        *checks.targets(config, source),
        *checks.scale(config, source, batch.batch, step.trace),
    ]
    found += checks.step(parts, step, batch.batch)
    found += checks.later_tokens(parts)
    rows = parameters.parameters(parts.model, step.trace, step.gradients)
    traced = all(row.gradient is not None for row in rows if row.use == "trained")
    taken = cost.cost(config, source, parts, replicas, traced=traced)
    trained = None
    if config.inspection.inspect_steps and traced:
        trained = _trained(config, source, parts, interrupted)
        if trained is None:
            return None
        if trained.failed:
            found.append(trained.text)
    found += checks.gradients(parts, rows, trained)
    content = [
        sections.findings(found),
        sections.data(source),
        sections.batch(source, batch, config.data.augment),
        ReportSection("Parameters", [parameters.table(rows)]),
        ReportSection("Cost", [cost.table(taken, config)]),
        sections.forward(step),
    ]
    if trained is not None:
        content.append(sections.one_batch(trained, parts.task.metrics))
    title = f"{config.model.model} on {source.name}"
    return Inspection(title, f"before training, on {parts.device}", found, content)


def _trained(
    config: Config, source: pipelines.Source, parts: Parts, interrupted: Callable[[], bool]
) -> Overfit | None:
    """Takes the steps on one batch, with a progress bar; returns None if interrupted."""
    steps = config.inspection.inspect_steps
    whole = first_batch(_of_one_batch(config), parts.source).batch
    bar = Progress(config.logging.progress, "one batch", steps)
    with contextlib.closing(bar):
        return overfit(parts, whole, steps, interrupted, bar.advance)
