"""result.json: the outcome of a run, written last and whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

import engine
import models
from engine.assembly import Parts
from engine.keeping import run_directory
from engine.keeping.clock import Clock
from engine.keeping.files import replace_file
from engine.metrics import jsonable
from engine.startup import after_import
from engine.state import weights_sha256


def outcome(
    parts: Parts,
    clock: Clock,
    *,
    epoch: int,
    metric: str,
    held_out: Mapping[str, Mapping[str, float | int]],
    startup_seconds: Mapping[str, float] | None,
    left_out: Sequence[int],
) -> dict[str, Any]:
    """What result.json is to hold.

    Args:
      parts: of the run; the model holds the weights that `held_out` was measured with.
      clock: of the run.
      epoch: the last one, counted from 1.
      metric: the monitored one.
      held_out: {split: means} of validation and test.
      startup_seconds: of each part of the last start that took a step, from the launch to the end
        of the first one; None when no start did.
      left_out: steps that were left out.
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
        "train_seconds": clock.train_seconds,
        "steps_per_second": clock.steps_per_second,
        **clock.figures,
        "first_step_seconds": startup_seconds and after_import(startup_seconds),
        "startup_seconds": startup_seconds,
        "traces": clock.traces | parts.traces,
        "skipped_steps": int(state.step) - int(state.updates),
        "left_out": left_out,
        "weights_sha256": weights_sha256(parts.model),
        "parameters": sum(row.parameters for row in models.rows(parts.model)),
        "dataset": f"{parts.source.name}:{parts.source.version}",
        "device": parts.device,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def write(run_dir: str, found: Mapping[str, Any]) -> str:
    """Writes run_dir/result.json, whole.

    Args:
      run_dir: of the run.
      found: as `outcome` gives it.

    Returns:
      One line about it for a person.

    Raises:
      OSError: when it cannot be written.
    """
    path = run_directory.result_file(run_dir)
    replace_file(path, json.dumps(jsonable(found), indent=2) + "\n")
    traced = ", ".join(f"{name} {count}" for name, count in found["traces"].items())
    return (
        f"result {path}: trained {found['train_seconds']:.1f} s at "
        f"{found['steps_per_second']:.1f} steps/s, goodput {found['goodput']:.0%}; "
        f"traces: {traced}"
    )
