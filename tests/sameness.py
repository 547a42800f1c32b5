"""Are two runs the same to the bit, in all but what measures time?"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.util import event_pb2

from engine.keeping.catalogue import list_checkpoints, read

DECIDED = (
    *("step", "epoch", "stopped_early", "best", "validation", "test"),
    *("skipped_steps", "left_out", "weights_sha256"),
)
SPLITS = ("train", "validation", "test")


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two run directories, in words; nothing where all is."""
    found = [key for key in DECIDED if result_of(one)[key] != result_of(other)[key]]
    if curves_of(one) != curves_of(other):
        found.append("metrics.jsonl")
    for split in SPLITS:
        first, second = points_of(one, split), points_of(other, split)
        if first != second or (split == "train" and "loss" not in first):
            found.append(f"TensorBoard's points of {split}")
    for folder in ("checkpoints", "best"):
        first, second = state_of(one / folder), state_of(other / folder)
        names = sorted(first.keys() ^ second.keys())
        names += [name for name in first.keys() & second.keys() if first[name] != second[name]]
        found += [f"{name} in {folder}" for name in names]
    return found


def result_of(run_dir: Path) -> dict[str, Any]:
    """result.json."""
    return json.loads((run_dir / "result.json").read_text())


def curves_of(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


def points_of(run_dir: Path, split: str) -> dict[str, list[tuple[int, bytes]]]:
    """What a split's event files hold, without what the clock decides.

    (step, the value's bytes) of each tag, in the order in which they were written.
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
    """The records of a TFRecord file; without TensorFlow, whose threads do not live in a fork."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 12 + length + 4


def state_of(folder: Path) -> dict[str, bytes]:
    """Every variable in the newest checkpoint of a folder, but for what the clock decides."""
    found = list_checkpoints(str(folder))
    if not found and folder.name == "best":  # no epoch has ended
        return {}
    arrays = read(found[-1]).arrays
    assert len(arrays) > 20
    return {n: value.tobytes() for n, value in arrays.items() if not n.startswith("times/")}
