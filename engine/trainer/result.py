"""Composes and writes result.json, the final results of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

import engine
from engine.assembly import run_directory
from engine.assembly.parts import Parts
from engine.core.metrics import jsonable
from engine.core.state import weights_sha256
from engine.logging.throughput import ThroughputMeter
from engine.models.summary import rows as summary_rows
from engine.runtime.atomic_files import replace_file
from engine.runtime.startup import after_import


def outcome(
    parts: Parts,
    meter: ThroughputMeter,
    *,
    epoch: int,
    metric: str,
    held_out: Mapping[str, Mapping[str, float | int]],
    startup_seconds: Mapping[str, float] | None,
    left_out: Sequence[int],
) -> dict[str, Any]:
    """Returns the contents of result.json.

    Args:
      parts: components of the run; the model holds the weights evaluated in `held_out`.
      meter: throughput meter of the run.
      epoch: epoch in which the run ended, counted from 1.
      metric: name of the monitored metric.
      held_out: {split: means} of the validation and test splits.
      startup_seconds: seconds of each part of the startup, by name, of the last start that took a
        step, from the launch of the process to the end of its first step; None if no start did.
      left_out: numbers of the skipped steps.
    """
    state = parts.state
    best = None
    if int(state.best.step) >= 0:
        best = {
            "step": int(state.best.step),
            "metric": metric,
            "value": float(state.best.value),
        }
    return {
        "step": int(state.step),
        "epoch": epoch,
        "stopped_early": bool(int(state.patience.stopped)),
        "best": best,
        "validation": held_out.get("validation"),
        "test": held_out.get("test"),
        "train_seconds": meter.train_seconds,
        "steps_per_second": meter.steps_per_second,
        **meter.figures,
        "first_step_seconds": startup_seconds and after_import(startup_seconds),
        "startup_seconds": startup_seconds,
        "traces": meter.traces | parts.traces,
        "skipped_steps": int(state.step) - int(state.updates),
        "left_out": left_out,
        "weights_sha256": weights_sha256(parts.model),
        "parameters": sum(row.parameters for row in summary_rows(parts.model)),
        "dataset": f"{parts.source.name}:{parts.source.version}",
        "device": parts.device,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def write(run_dir: str, found: Mapping[str, Any]) -> str:
    """Writes run_dir/result.json atomically.

    Args:
      run_dir: run directory.
      found: results, as `outcome` returns them.

    Returns:
      A line for the user.

    Raises:
      OSError: if the file cannot be written.
    """
    path = run_directory.result_file(run_dir)
    replace_file(path, json.dumps(jsonable(found), indent=2) + "\n")
    traced = ", ".join(f"{name} {count}" for name, count in found["traces"].items())
    return (
        f"result {path}: trained {found['train_seconds']:.1f} s at "
        f"{found['steps_per_second']:.1f} steps/s, goodput {found['goodput']:.0%}; "
        f"traces: {traced}"
    )
