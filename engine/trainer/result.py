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
from engine.distributed.options import GIVEN_UP
from engine.logging.throughput import ThroughputMeter
from engine.models.summary import rows as summary_rows
from engine.runtime import onednn, user_code
from engine.runtime.atomic_files import replace_file
from engine.runtime.startup import after_import
from engine.trainer import console


def outcome(
    parts: Parts,
    meter: ThroughputMeter,
    *,
    epoch: int,
    metric: str,
    stopped: tuple[str, str],
    weights_step: int | None,
    results: Mapping[str, Mapping[str, float | int]],
    left_out: Sequence[int],
) -> dict[str, Any]:
    """Returns the content of result.json as a dict, which may hold nan and infinity.

    Args:
      parts: the run, whose model holds the weights that were evaluated.
      meter: throughput and startup times.
      epoch: epoch, counted from 1, in which training ended.
      metric: name of the monitored metric, such as "validation_accuracy".
      stopped: option that ended training early, such as "patience", and the reason as text; both
        are "" if training ended at its full length.
      weights_step: step of the best weights if these were evaluated; None: the final ones were.
      results: mean loss and metrics of each evaluated split, {split: means}.
      left_out: numbers, from 0, of the skipped steps.
    """
    state, startup_seconds = parts.state, meter.startup_seconds
    step, best_step = int(state.step), int(state.best.step)
    loaded = user_code.digests()
    evaluation = parts.config.evaluation
    examples, views = evaluation.evaluation_examples, evaluation.evaluation_views
    best = {"step": best_step, "metric": metric, "value": float(state.best.value)}
    return {
        "step": step,
        "epoch": epoch,
        "stopped_early": bool(int(state.patience.stopped)),
        "stopped_by": stopped[0] or None,
        "stop_reason": stopped[1] or None,
        "best": best if best_step >= 0 else None,
        "weights_step": step if weights_step is None else weights_step,
        **parts.validation_scores(results),
        "test": results.get("test"),
        **({"evaluation_examples": examples} if examples else {}),
        **({"evaluation_views": views} if parts.views else {}),
        "train_seconds": meter.train_seconds,
        "steps_per_second": meter.steps_per_second,
        **meter.figures,
        "first_step_seconds": startup_seconds and after_import(startup_seconds),
        "startup_seconds": startup_seconds,
        "traces": meter.traces | parts.traces,
        "skipped_steps": step - int(state.updates),
        "left_out": left_out,
        "weights_sha256": weights_sha256(parts.model),
        "parameters": sum(row.parameters for row in summary_rows(parts.model)),
        "dataset": f"{parts.source.name}:{parts.source.version}",
        "device": parts.device,
        "precision": parts.config.precision.precision,
        "emulated": console.emulation(parts) or None,
        "onednn": onednn.state(),
        "jit": parts.jit,
        **({"jit_reason": parts.jit_reason} if parts.jit_reason else {}),
        "deterministic": parts.config.devices.is_deterministic,
        **({} if parts.config.devices.is_deterministic else {"given_up": GIVEN_UP}),
        **({"load": loaded} if loaded else {}),
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def write(run_dir: str, content: Mapping[str, Any]) -> str:
    """Writes the content that `outcome` returns to run_dir/result.json; returns a summary line.

    Raises:
      OSError: if the file cannot be written.
    """
    path = run_directory.result_file(run_dir)
    replace_file(path, json.dumps(jsonable(content), indent=2) + "\n")
    traced = ", ".join(f"{name} {count}" for name, count in content["traces"].items())
    return (
        f"result {path}: trained {content['train_seconds']:.1f} s at "
        f"{content['steps_per_second']:.1f} steps/s, goodput {content['goodput']:.0%}; "
        f"traces: {traced}"
    )
