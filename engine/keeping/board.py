"""TensorBoard curves and metrics.jsonl; both rewound on resume, so that no step stands twice.

run_dir/tensorboard/{train,validation,test}/    the same tags in each: shared charts
run_dir/metrics.jsonl                           one JSON object a line
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.keeping import events
from engine.keeping.events import EventFile
from engine.keeping.files import replace_file
from engine.metrics import jsonable
from pipelines import reason

SPLITS = ("train", "validation", "test")


class Row(NamedTuple):
    """What is written at a step.

    step: steps taken so far.
    epoch: counted from 1, the one that `step` ends or lies in.
    values: by name; nan and infinity are null in the row.
    of_clock: points of charts of the clock's alone; no two runs have the same.
    """

    step: int
    epoch: int
    values: Mapping[str, float | int]
    of_clock: Mapping[str, float | int] = {}


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
        self._files: dict[str, EventFile] = {}

    def rewind(self, train: int, validation: int) -> None:
        """Drops the rows and points that lie ahead of a run's state. Before any `write`.

        What belongs to the end of a command goes too, because that is yet to come: the test split's
        rows, and those of training and validation inside an epoch. Each file is replaced whole. A
        last line cut short by a kill is dropped with the others.

        Args:
          train: the last step whose training rows are kept; -1: none.
          validation: the last step whose validation rows are kept.
        """
        assert not self._files, "rewind before writing"
        if not self._writes:
            return
        last = {"train": train, "validation": validation, "test": -1}
        if os.path.exists(self._metrics):
            with open(self._metrics, encoding="utf-8") as file:
                kept = [line.rstrip("\n") + "\n" for line in file if _belongs(line, last)]
            replace_file(self._metrics, "".join(kept))
        for split in SPLITS:
            directory = os.path.join(self._tensorboard, split)
            if os.path.isdir(directory):
                events.rewind(directory, last[split])

    def write(self, split: str, rows: Sequence[Row]) -> None:
        """Rows, and for each a point on each chart: on their way to the disk when it returns.

        Args:
          split: train, validation or test.
          rows: one or more, in order.

        Raises:
          OSError: when they cannot be written.
        """
        if not self._writes:
            return
        lines = [
            jsonable({"step": row.step, "epoch": row.epoch, "split": split, **row.values})
            for row in rows
        ]
        try:
            with open(self._metrics, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._draw(split, rows)
        except (OSError, tf.errors.OpError) as error:
            words = (isinstance(error, OSError) and error.strerror) or reason(error)
            raise OSError(f"cannot write curves to {self._run_dir}: {words}") from error

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Histograms beside the curves of the training split, by tag.

        Raises:
          OSError: when they cannot be written.
        """
        if not self._writes:
            return
        try:
            file = self._file("train")
            for tag, array in values.items():
                file.add_summary(step, events.histogram(tag, array))
            file.flush()
        except tf.errors.OpError as error:
            raise OSError(f"cannot write curves to {self._run_dir}: {reason(error)}") from error

    def _file(self, split: str) -> EventFile:
        if split not in self._files:
            self._files[split] = EventFile(os.path.join(self._tensorboard, split))
        return self._files[split]

    def _draw(self, split: str, rows: Sequence[Row]) -> None:
        file = self._file(split)
        for row in rows:
            points = {name: value for name, value in row.values.items() if name != "examples"}
            points |= {f"clock/{name}": value for name, value in row.of_clock.items()}
            file.add(row.step, points)
        file.flush()

    def close(self) -> None:
        """Finishes the event files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _belongs(line: str, last: Mapping[str, int]) -> bool:
    try:
        row = json.loads(line)
        return row["step"] <= last[row["split"]]
    except (ValueError, KeyError, TypeError):
        return False
