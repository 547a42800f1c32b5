"""Comparison of two run directories, which must be bitwise equal except for timings."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.util import event_pb2

from engine.checkpoint.catalog import list_checkpoints, read, read_metadata

DECIDED = (
    *("step", "epoch", "stopped_early", "stopped_by", "stop_reason", "best", "weights_step"),
    *("validation", "validation_sets", "test"),
    *("skipped_steps", "left_out", "weights_sha256"),
)


def differences(one: Path, other: Path) -> list[str]:
    """Returns descriptions of the differences of two run directories; [] if there are none.

    Compares the decisions in result.json, the rows of metrics.jsonl, TensorBoard's points, the
    newest checkpoint and the best ones. It is a difference as well if TensorBoard has no training
    losses.
    """
    result, other_result = result_of(one), result_of(other)
    found = [key for key in DECIDED if result.get(key) != other_result.get(key)]
    curves, other_curves = curves_of(one), curves_of(other)
    if curves != other_curves:
        found.append("metrics.jsonl")
    for split in sorted({"train"} | {row["split"] for row in [*curves, *other_curves]}):
        first, second = points_of(one, split), points_of(other, split)
        if first != second or (split == "train" and "loss" not in first):
            found.append(f"TensorBoard's points of {split}")
    for folder, states in (("checkpoints", state_of), ("best", best_states_of)):
        first, second = states(one), states(other)
        names = sorted(first.keys() ^ second.keys())
        names += [name for name in first.keys() & second.keys() if first[name] != second[name]]
        found += [f"{name} in {folder}" for name in names]
    return found


def result_of(run_dir: Path) -> dict[str, Any]:
    """Returns the contents of a run's result.json."""
    return json.loads((run_dir / "result.json").read_text())


def curves_of(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's metrics.jsonl without timings."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


def points_of(run_dir: Path, split: str) -> dict[str, list[tuple[int, bytes]]]:
    """Returns the points in a split's TensorBoard event files, without timings.

    Returns:
      For each tag, the pairs (step, bytes of the value) in the order of writing.
    """
    points: dict[str, list[tuple[int, bytes]]] = {}
    folder = run_dir / "tensorboard" / split
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        for record in records_of(path):
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                if value.tag != "steps_per_second" and not value.tag.startswith("clock/"):
                    point = event.step, value.tensor.SerializeToString()
                    points.setdefault(value.tag, []).append(point)
    return points


def records_of(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, without a check of the checksums.

    TensorFlow is not used for reading, because its threads do not survive a fork.
    """
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 12 + length + 4


def state_of(run_dir: Path) -> dict[str, bytes]:
    """Returns the bytes of each variable in a run's newest checkpoint, by name, without timings."""
    return bytes_of(list_checkpoints(str(run_dir / "checkpoints"))[-1])


def best_states_of(run_dir: Path) -> dict[str, bytes]:
    """Returns the bytes of each variable in all best checkpoints, by step and name.

    Timings are left out, and so are checkpoints of a step that the run has not reached, which a
    killed run may leave.
    """
    reached = read_metadata(list_checkpoints(str(run_dir / "checkpoints"))[-1])["step"]
    found = {}
    for path in list_checkpoints(str(run_dir / "best")):
        step = read_metadata(path)["step"]
        if step <= reached:
            found |= {f"{name} of step {step}": each for name, each in bytes_of(path).items()}
    return found


def bytes_of(path: str) -> dict[str, bytes]:
    """Returns the bytes of each variable in the checkpoint at `path`, by name, without timings."""
    arrays = read(path).arrays
    assert len(arrays) > 20
    return {n: value.tobytes() for n, value in arrays.items() if not n.startswith("timing/")}
