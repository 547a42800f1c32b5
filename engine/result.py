"""result.json: the outcome of a run, written last and whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

import engine
import models
from engine.assembly import Parts
from engine.keeping.clock import Clock
from engine.keeping.files import replace_file
from engine.metrics import jsonable
from engine.startup import after_import
from engine.state import weights_sha256


def write(
    parts: Parts,
    clock: Clock,
    *,
    epoch: int,
    metric: str,
    held_out: Mapping[str, Mapping[str, float | int]],
    startup_seconds: Mapping[str, float] | None,
    left_out: Sequence[int],
) -> str:
    """Writes run_dir/result.json.

    Args:
      parts: of the run; the model holds the weights that `held_out` was measured with.
      clock: of the run.
      epoch: the last one, counted from 1.
      metric: the monitored one.
      held_out: {split: means} of validation and test.
      startup_seconds: of each part of this start, from the launch to the end of the first step;
        None when this start took none.
      left_out: steps that were left out.

    Returns:
      One line about it for a person.
    """
    state = parts.state
    best = None
    if int(state.best.step) >= 0:
        best = {
            "step": int(state.best.step),
            "metric": metric,
            "value": float(state.best.value),
        }
    outcome = {
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
        "traces": parts.traces,
        "skipped_steps": int(state.step) - int(state.updates),
        "left_out": left_out,
        "weights_sha256": weights_sha256(parts.model),
        "parameters": sum(row.parameters for row in models.rows(parts.model)),
        "dataset": f"{parts.source.name}:{parts.source.version}",
        "device": parts.device,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }
    path = os.path.join(parts.config.run.run_dir, "result.json")
    replace_file(path, json.dumps(jsonable(outcome), indent=2) + "\n")
    traced = ", ".join(f"{name} {count}" for name, count in parts.traces.items())
    return (
        f"result {path}: trained {clock.train_seconds:.1f} s at {clock.steps_per_second:.1f} "
        f"steps/s, goodput {clock.goodput:.0%}; traces: {traced}"
    )
