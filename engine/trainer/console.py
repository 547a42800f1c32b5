"""Formats the console messages of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

import engine
import pipelines
from engine.assembly import automatic_options, precision, processor_choices
from engine.assembly.parts import Parts
from engine.assembly.processor_choices import ComputeDevices
from engine.config.option import written
from engine.config.schema import Config
from engine.core.metrics import Metrics, brief
from engine.distributed.options import GIVEN_UP
from engine.models.summary import table as summary_table
from engine.runtime import onednn
from engine.runtime.processor import this_processor


def introduction(parts: Parts, *, resumed: bool, over: bool, stopped: str = "") -> str:
    """Returns the first lines that a run prints: those of `setting`, and the status of the run.

    The status says whether the run is new, resumed or already complete.

    Args:
      parts: the run, with its state restored.
      resumed: whether the run existed before.
      over: whether the training of a resumed run is complete.
      stopped: reason for early stopping; "" if training did not stop early.
    """
    state, config = parts.state, parts.config
    step = int(state.step)
    length = "train_steps" if config.training.train_steps else "epochs"
    if not resumed:
        status = "new"
    elif not over:
        status = f"resumed at step {step:,}, start {int(state.timing.restarts) + 1}"
    elif stopped:
        status = f"already complete at step {step:,}, stopped early: {stopped}, "
        status += f"whatever --{length} is"
    else:
        status = f"already complete at step {step:,}; raise --{length} to continue"
    return f"{setting(parts)}\nrun    {config.run.run_dir}: {status}"


def setting(parts: Parts) -> str:
    """Returns lines of text about the versions, device, data, model and training plan of a run."""
    source, config = parts.source, parts.config
    counts = ", ".join(
        f"{name} {pipelines.size_text(split)}" for name, split in source.splits.items()
    )
    notes = [*automatic_options.notes(config), emulation(parts)]
    lines = [
        f"tapeline {engine.__version__}, tensorflow {tf.__version__}, on {parts.device}",
        *(f"       {line}" for line in notes if line),
        f"data   {source.name} {source.version}: {counts}; {example(source)}; "
        f"{parts.feed_kind} feed, {parts.data_bytes / 1e6:.1f} MB decoded",
        *(f"       {line}" for line in (source.features, *source.notes) if line),
        f"model  {config.model.model}",
        *(f"       {line}" for line in summary_table(parts.model).splitlines()),
        f"train  {parts.total_steps:,} steps, {parts.steps_per_epoch:,} an epoch; {plan(config)}",
    ]
    compiled = {"off": "nothing", "step": "each step", "loop": "the loop"}[parts.jit]
    why = f": {parts.jit_reason}" if parts.jit_reason else ""
    lines.append(f"       --jit={config.loop.jit}: XLA compiles {compiled}{why}")
    if parts.views:
        selected = f"--evaluation_views={config.evaluation.evaluation_views}"
        lines.append(f"       {selected}: evaluation takes {len(parts.views)} passes")
    if not config.devices.is_deterministic:
        lines.append(f"       --deterministic=no gives up {GIVEN_UP}")
    return "\n".join(lines)


def emulation(parts: Parts) -> str:
    """Returns a line that says that the precision of a run is emulated; "" if it is not."""
    computing = ComputeDevices(this_processor(), precision.capability(parts.config.devices))
    return processor_choices.emulation(
        parts.config.precision.precision,
        computing,
        onednn.state(),
        compiled=parts.loop.step.compiled_gradients,
    )


def example(source: pipelines.Source) -> str:
    """Returns text about targets and decoded inputs, such as `10 classes, images 28x28x1`."""
    inputs, targets = source.decoded
    of_inputs = f"inputs {pipelines.described(inputs)}"
    if source.has_images:
        of_inputs = f"images {'x'.join(map(str, source.image_shape))}"
    classes = f"{source.classes} classes"
    if source.has_labels:
        return f"{classes}, {of_inputs}"
    of_classes = f" of {classes}" if source.classes else ""
    return f"{of_inputs}, targets {pipelines.described(targets)}{of_classes}"


def plan(config: Config) -> str:
    """Returns text about batch size, optimizer, learning rate and seed.

    Non-default values of some other options, such as `--accumulate`, follow.
    """
    rate = config.schedule
    return (
        f"batch {config.training.global_batch_size}, {config.optimizer.optimizer}, {rate.schedule} "
        f"learning rate {rate.learning_rate:g}, seed {config.run.seed}{_unusual(config)}"
    )


def _unusual(config: Config) -> str:
    """Returns the non-default ones of seven options as text, such as `, accumulate 4, ema 0.99`."""
    sections = config.precision, config.training, config.devices, config.optimizer, config.data
    names = ("precision", "accumulate", "shards", "clip_norm", "clip_value", "ema", "augment")
    return "".join(
        f", {field.name} {written(getattr(section, field.name))}"
        for section in sections
        for field in dataclasses.fields(section)
        if field.name in names and getattr(section, field.name) != field.default
    )


def results_line(
    results: Mapping[str, Mapping[str, float | int]],
    of: Metrics,
    *,
    steps_per_second: float | None,
    skipped: int,
    comparison: str = "",
) -> str:
    """Returns a line of text about the results of an evaluation.

    Args:
      results: mean loss and metrics of each split, {split: {metric: value}}.
      of: metrics of the task.
      steps_per_second: throughput so far; None: no step was taken yet.
      skipped: number of steps so far that did not update the weights.
      comparison: text that compares the result with the best one; "" to leave this out.
    """
    columns = [f"{split} {brief(values, of)}" for split, values in results.items()]
    if steps_per_second is not None:
        columns.append(f"{steps_per_second:.1f} steps/s")
    if comparison:
        columns.append(comparison)
    if skipped:
        columns.append(f"{skipped:,} steps skipped so far (bad steps, or gradient not finite)")
    return "; ".join(columns)
