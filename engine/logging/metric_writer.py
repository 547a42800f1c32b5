"""Writes metrics to TensorBoard and metrics.jsonl; rewinds both on resume, so no step is repeated.

run_dir/tensorboard/{train,validation,test}/    event files with the same tags, for shared charts
run_dir/metrics.jsonl                           one JSON object per row
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.core.metrics import jsonable
from engine.logging import event_file
from engine.logging.event_file import EventFile
from engine.runtime.atomic_files import replace_file
from pipelines import reason

SPLITS = ("train", "validation", "test")


class MetricRow(NamedTuple):
    """The metrics logged at one step.

    Attributes:
      step: number of steps taken.
      epoch: epoch that contains `step` or ends at it, counted from 1.
      values: metrics by name; nan and infinity are written as null to metrics.jsonl.
      of_clock: timing values by name, written to TensorBoard only, under the prefix `clock/`; they
        differ between identical runs.
    """

    step: int
    epoch: int
    values: Mapping[str, float | int]
    of_clock: Mapping[str, float | int] = {}


class MetricWriter:
    """Writes a run's metrics to metrics.jsonl and to TensorBoard event files.

    Args:
      run_dir: run directory.
      writes: whether this process writes; True on one worker only.
    """

    def __init__(self, run_dir: str, writes: bool = True) -> None:
        self._run_dir, self._writes = run_dir, writes
        self._metrics = os.path.join(run_dir, "metrics.jsonl")
        self._tensorboard = os.path.join(run_dir, "tensorboard")
        self._files: dict[str, EventFile] = {}

    def rewind(self, train: int, validation: int) -> None:
        """Removes the rows and events after the restored step. Must be called before `write`.

        It also removes rows written at the end of an earlier command, because the run continues
        past it: all rows of the test split, and training and validation rows inside an epoch. A
        last line truncated by a kill is removed, too. Each file is replaced atomically.

        Args:
          train: last step whose training rows are kept; -1: no row is kept.
          validation: last step whose validation rows are kept.
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
                event_file.rewind(directory, last[split])

    def write(self, split: str, rows: Sequence[MetricRow]) -> None:
        """Writes rows to metrics.jsonl and TensorBoard, and flushes both to the operating system.

        Args:
          split: "train", "validation" or "test".
          rows: one or more rows, in the order of their steps.

        Raises:
          OSError: if the rows cannot be written.
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
        """Writes a histogram summary for each tag to the event file of the training split.

        Raises:
          OSError: if the summaries cannot be written.
        """
        if not self._writes:
            return
        try:
            file = self._file("train")
            for tag, array in values.items():
                file.add_summary(step, event_file.histogram(tag, array))
            file.flush()
        except tf.errors.OpError as error:
            raise OSError(f"cannot write curves to {self._run_dir}: {reason(error)}") from error

    def _file(self, split: str) -> EventFile:
        if split not in self._files:
            self._files[split] = EventFile(os.path.join(self._tensorboard, split))
        return self._files[split]

    def _draw(self, split: str, rows: Sequence[MetricRow]) -> None:
        file = self._file(split)
        for row in rows:
            points = {name: value for name, value in row.values.items() if name != "examples"}
            points |= {f"clock/{name}": value for name, value in row.of_clock.items()}
            file.add(row.step, points)
        file.flush()

    def close(self) -> None:
        """Closes the event files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _belongs(line: str, last: Mapping[str, int]) -> bool:
    try:
        row = json.loads(line)
        return row["step"] <= last[row["split"]]
    except (ValueError, KeyError, TypeError):
        return False
