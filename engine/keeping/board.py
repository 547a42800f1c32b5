"""TensorBoard curves and metrics.jsonl; both rewound on resume, so that no step stands twice.

run_dir/tensorboard/{train,validation,test}/    the same tags in each: shared charts
run_dir/metrics.jsonl                           one JSON object a line
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.util import event_pb2

from engine.keeping.files import replace_file
from engine.metrics import jsonable
from engine.scalars import real, whole
from pipelines import reason

SPLITS = ("train", "validation", "test")


class Board:
    """Writes a run's curves.

    Args:
      run_dir: where they go.
      writes: whether this process writes them; another one may do it for all.
    """

    def __init__(self, run_dir: str, writes: bool = True) -> None:
        self._run_dir, self._writes = run_dir, writes
        self._metrics = os.path.join(run_dir, "metrics.jsonl")
        self._tensorboard = os.path.join(run_dir, "tensorboard")
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def rewind(self, step: int) -> None:
        """Drops every row and point after `step`: the run goes on from there. Before any `write`.

        What the test split gave goes too: it belongs to the end of a run, which is yet to come.
        Each file is replaced whole. A last line cut short by a kill is dropped with the others.

        Args:
          step: the last one whose rows are kept; -1: none.
        """
        assert not self._writers, "rewind before writing"
        if not self._writes:
            return
        if os.path.exists(self._metrics):
            with open(self._metrics, encoding="utf-8") as file:
                kept = [line.rstrip("\n") + "\n" for line in file if _belongs(line, step)]
            replace_file(self._metrics, "".join(kept))
        for split in SPLITS:
            directory = os.path.join(self._tensorboard, split)
            if os.path.isdir(directory):
                _rewind_events(directory, -1 if split == "test" else step)

    def write(
        self,
        split: str,
        step: int,
        epoch: int,
        values: Mapping[str, float | int],
        of_clock: Mapping[str, float | int] | None = None,
    ) -> None:
        """One row, and one point on each chart.

        Args:
          split: train, validation or test.
          step: steps taken so far.
          epoch: counted from 1, the one that `step` ends or lies in.
          values: by name; nan and infinity are null in the row.
          of_clock: points of charts of the clock's alone; no two runs have the same.

        Raises:
          OSError: when they cannot be written.
        """
        if not self._writes:
            return
        row = jsonable({"step": step, "epoch": epoch, "split": split, **values})
        points = {name: value for name, value in values.items() if name != "examples"}
        points |= {f"clock/{name}": value for name, value in (of_clock or {}).items()}
        try:
            with open(self._metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self._draw(split, step, points)
        except (OSError, tf.errors.OpError) as error:
            words = (isinstance(error, OSError) and error.strerror) or reason(error)
            raise OSError(f"cannot write curves to {self._run_dir}: {words}") from error

    def _draw(self, split: str, step: int, points: Mapping[str, float | int]) -> None:
        if split not in self._writers:
            directory = os.path.join(self._tensorboard, split)
            self._writers[split] = tf.summary.create_file_writer(directory)
        with self._writers[split].as_default():
            for name, value in points.items():
                tf.summary.scalar(name, real(value), step=whole(step))
        self._writers[split].flush()

    def close(self) -> None:
        """Finishes the event files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _belongs(line: str, step: int) -> bool:
    try:
        row = json.loads(line)
        return row["step"] <= step and row["split"] != "test"
    except (ValueError, KeyError, TypeError):
        return False


def _rewind_events(directory: str, step: int) -> None:
    """Rewrites a split's event files without what came after `step`."""
    names = [name for name in sorted(os.listdir(directory)) if ".tfevents." in name]
    for name in names:
        if name.endswith(".part"):  # of a rewinding that was killed
            os.unlink(os.path.join(directory, name))
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(".part"):
            continue
        kept, dropped = [], False
        # A kill may cut the last event short: what was whole before it stays.
        with contextlib.suppress(tf.errors.DataLossError):
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                event = event_pb2.Event.FromString(record)
                if event.step <= step or event.HasField("file_version"):
                    kept.append(record)
                else:
                    dropped = True
        size = sum(len(record) + 16 for record in kept)
        if not dropped and size == os.path.getsize(path):
            continue
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for record in kept:
                writer.write(record)
        os.replace(f"{path}.part", path)
