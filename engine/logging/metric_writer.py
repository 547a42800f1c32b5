"""Writes metrics to TensorBoard and metrics.jsonl; on resume, removes those of later steps.

The event files in tensorboard/{train,validation,test}/ have the same tags, so that TensorBoard
shows the splits in the same charts. Named validation sets have directories of their names.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.core.metrics import jsonable
from engine.logging import event_file, run_summary
from engine.logging.event_file import EventFile
from engine.runtime.atomic_files import replace_file
from pipelines import reason


class MetricRow(NamedTuple):
    """The metrics of one split, logged at one step."""

    step: int  # number of steps taken
    epoch: int  # epoch that contains `step` or ends at it, counted from 1
    values: Mapping[str, float | int]  # by name; metrics.jsonl has null for nan and infinity
    # Timings by name, which differ between identical runs; written to TensorBoard only, as clock/*.
    of_clock: Mapping[str, float | int] = {}


class MetricWriter:
    """Writer of a run's metrics to metrics.jsonl and to TensorBoard event files.

    Args:
      run_dir: run directory.
      writes: True on one worker; on other workers, all methods do nothing.
      validation_sets: names of the validation sets.
    """

    def __init__(
        self, run_dir: str, writes: bool = True, validation_sets: Sequence[str] = ("validation",)
    ) -> None:
        self._run_dir, self._writes, self._sets = run_dir, writes, tuple(validation_sets)
        self._metrics = os.path.join(run_dir, "metrics.jsonl")
        self._tensorboard = os.path.join(run_dir, "tensorboard")
        self._files: dict[str, EventFile] = {}

    def rewind(self, train: int, validation: int) -> None:
        """Removes the rows and events after the restored step. Must be called before `write`.

        `train` and `validation` are the last steps whose rows are kept, those of the training split
        and of all validation sets; -1: none. All rows of other splits are removed: the resumed run
        evaluates the test split again at its end, and a run that starts over may have other
        validation sets. So is a last line truncated by a kill. Each file is replaced atomically.

        Raises:
          OSError: if a file cannot be replaced.
        """
        assert not self._files, "rewind before writing"
        if not self._writes:
            return
        last = {"train": train, **dict.fromkeys(self._sets, validation), "test": -1}
        with self._as_os_error():
            if os.path.exists(self._metrics):
                with open(self._metrics, encoding="utf-8") as file:
                    lines = [line.rstrip("\n") + "\n" for line in file]
                last = dict.fromkeys(filter(None, map(_split_of, lines)), -1) | last
                kept = [line for line in lines if _is_kept(line, last)]
                replace_file(self._metrics, "".join(kept))
            for split, step in last.items():
                directory = os.path.join(self._tensorboard, split)
                if os.path.isdir(directory):
                    event_file.rewind(directory, step)

    def write(self, split: str, rows: Sequence[MetricRow]) -> None:
        """Appends rows of a split to metrics.jsonl and to the split's event file; flushes both.

        `rows` must be in the order of their steps.

        Raises:
          OSError: if the rows cannot be written.
        """
        if not self._writes:
            return
        with self._as_os_error():
            with open(self._metrics, "a", encoding="utf-8") as file:
                for row in rows:
                    line = {"step": row.step, "epoch": row.epoch, "split": split, **row.values}
                    file.write(json.dumps(jsonable(line)) + "\n")
            self._draw(split, rows)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes a histogram summary at `step` for each {tag: array} to the training event file.

        Raises:
          OSError: if the summaries cannot be written.
        """
        if not self._writes:
            return
        with self._as_os_error():
            file = self._file("train")
            for tag, array in values.items():
                file.add_summary(step, run_summary.histogram(tag, array))
            file.flush()

    def close(self) -> None:
        """Closes the event files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

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

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            message = (isinstance(error, OSError) and error.strerror) or reason(error)
            raise OSError(f"cannot write curves to {self._run_dir}: {message}") from error


def _split_of(line: str) -> str:
    """Returns the split of a row if it may be that of a run, else ""."""
    try:
        split = json.loads(line)["split"]
        return split if isinstance(split, str) and split.isidentifier() else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _is_kept(line: str, last: Mapping[str, int]) -> bool:
    try:
        row = json.loads(line)
        return row["step"] <= last[row["split"]]
    except (ValueError, KeyError, TypeError):
        return False
