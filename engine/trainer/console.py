"""Formats the console messages of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

import engine
from engine.assembly.parts import Parts
from engine.config.option import written
from engine.config.schema import Config
from engine.core import metrics
from engine.models.summary import table as summary_table


def introduction(parts: Parts, *, resumed: bool, over: bool, stopped: str = "") -> str:
    """Returns the first lines of a run: device, data, model, training plan, and how it starts.

    Args:
      parts: components of the run, with the state restored.
      resumed: whether a checkpoint was restored.
      over: whether training is complete.
      stopped: reason for early stopping, as text; "" if training did not stop early.
    """
    state, config = parts.state, parts.config
    step = int(state.step)
    how = "new"
    if resumed:
        how = f"resumed at step {step:,}, start {int(state.timing.restarts) + 1}"
    if resumed and over:
        length = "train_steps" if config.training.train_steps else "epochs"
        how = f"already complete at step {step:,}" + (
            f", stopped early: {stopped}, whatever --{length} is"
            if stopped
            else f"; raise --{length} to continue"
        )
    return f"{setting(parts)}\nrun    {config.run.run_dir}: {how}"


def setting(parts: Parts) -> str:
    """Returns the lines about device, data, model and training plan."""
    source, config = parts.source, parts.config
    sizes = {"train": source.train, "validation": source.validation, "test": source.test}
    counts = ", ".join(f"{name} {len(s):,}" for name, s in sizes.items() if s is not None)
    shape = "x".join(map(str, source.image_shape))
    lines = [
        f"tapeline {engine.__version__}, tensorflow {tf.__version__}, on {parts.device}",
        f"data   {source.name} {source.version}: {counts}; {source.classes} classes, images "
        f"{shape}; {parts.feed_kind} feed, {parts.data_bytes / 1e6:.1f} MB decoded",
        f"model  {config.model.model}",
        *(f"       {line}" for line in summary_table(parts.model).splitlines()),
        f"train  {parts.total_steps:,} steps, {parts.steps_per_epoch:,} an epoch; {plan(config)}",
    ]
    return "\n".join(lines)


def plan(config: Config) -> str:
    """Returns batch size, optimizer, learning rate, seed and non-default step options as text."""
    rate = config.schedule
    return (
        f"batch {config.training.global_batch_size}, {config.optimizer.optimizer}, {rate.schedule} "
        f"learning rate {rate.learning_rate:g}, seed {config.run.seed}{_unusual(config)}"
    )


def _unusual(config: Config) -> str:
    """Returns the non-default step options as text, such as `, accumulate 4, clip_norm 1.0`."""
    sections = config.precision, config.training, config.devices, config.optimizer, config.data
    names = ("precision", "accumulate", "shards", "clip_norm", "clip_value", "ema", "augment")
    words = ""
    for section in sections:
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if field.name in names and value != field.default:
                words += f", {field.name} {written(value)}"
    return words


def epoch_line(
    epoch: str,
    results: Mapping[str, Mapping[str, float | int]],
    *,
    steps_per_second: float,
    metric: str,
    best: float,
    before: float | None,
    saved_to: str,
    skipped: int = 0,
) -> str:
    """Returns the results of one epoch as one line.

    Args:
      epoch: epoch and number of epochs, such as "3/10".
      results: metrics of each split, as {split: {metric: mean}}.
      steps_per_second: throughput over all starts, in steps per second.
      metric: name of the monitored metric.
      best: best value of the monitored metric so far.
      before: best value before this epoch, nan if there is none; None if this epoch is not the
        best.
      saved_to: directory of the best checkpoint.
      skipped: number of steps so far that did not update the weights.
    """
    if before is None:
        judged = f"{metric} did not improve on {best:.4f}"
    else:
        better = "" if before != before else f"improved, {before:.4f} to "
        judged = f"{metric} {better}{best:.4f}, saved to {saved_to}"
    words = results_line(results, steps_per_second=steps_per_second, judged=judged, skipped=skipped)
    return f"epoch {epoch}: {words}"


def results_line(
    results: Mapping[str, Mapping[str, float | int]],
    *,
    steps_per_second: float,
    judged: str = "",
    skipped: int = 0,
) -> str:
    """Returns the results of all splits as one line.

    Args:
      results: metrics of each split, as {split: {metric: mean}}.
      steps_per_second: throughput over all starts, in steps per second.
      judged: comparison with the best epoch, as text; "": no comparison.
      skipped: number of steps so far that did not update the weights.
    """
    words = [f"{split} {metrics.brief(values)}" for split, values in results.items()]
    words.append(f"{steps_per_second:.1f} steps/s")
    if judged:
        words.append(judged)
    if skipped:
        words.append(f"{skipped:,} steps skipped so far (bad steps, or gradient not finite)")
    return "; ".join(words)
