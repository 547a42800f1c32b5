"""Implements `--mode=evaluate --follow`: evaluates every new checkpoint while a run trains.

run_dir/evaluations/NAME.jsonl        one JSON object per step and split, as in metrics.jsonl
run_dir/tensorboard/NAME_SPLIT/       the same metrics for TensorBoard
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.assembly import run_directory
from engine.assembly.trained import restored
from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import DamagedError
from engine.checkpoint.restore import restore_weights
from engine.config.schema import Config, replaced
from engine.core import metrics
from engine.core.metrics import jsonable
from engine.logging.event_file import EventFile
from engine.reporting.metric_history import read_rows
from engine.runtime.atomic_files import replace_file
from engine.runtime.lock import in_use
from engine.runtime.signals import Signals

_POLL = 0.5  # seconds between two looks at the run directory


def run(config: Config) -> int:
    """Evaluates each checkpoint of a run once, until the run has ended or a signal is received.

    The splits are those that the run holds out, or `--split`. The results are written to
    evaluations/NAME.jsonl and to TensorBoard; a checkpoint of a step whose results are in the file
    is not evaluated again. Nor are damaged checkpoints, and those that training removes before they
    are read. Prints a line per checkpoint; the last line of the output is JSON, with the number of
    checkpoints that this process has evaluated and the path of the file.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the run has no checkpoint, if the options or the data set do not fit the run,
        if the split does not exist, if no split is held out and `--split` is not given, if a metric
        fails, or if evaluations/NAME.jsonl has an invalid line.
      OSError: if a file cannot be read or written.
      RuntimeError, tf.errors.OpError: if TensorFlow fails, for example to write an event file.
      AssertionError: if an example was lost or scored twice.
    """
    split, name = config.report.split, config.report.evaluation_name
    if split:
        config = replaced(config, test_split=split)
    with Signals() as signals, restored(config) as restored_run:
        parts, run_dir = restored_run.parts, config.run.run_dir

        def interrupted() -> bool:
            return bool(signals.received)

        chosen = {
            split or key: each
            for key, each in parts.evaluations.items()
            if not split or key == "test"
        }
        if not chosen:
            raise ValueError("no split is held out: give --split")
        for key in chosen:
            if (folder := _folder(name, key)) in parts.source.validation_sets:
                raise ValueError(
                    f"--evaluation_name={name}: {folder} is a validation set of the run, whose "
                    "curves would be replaced: give another --evaluation_name"
                )
        rows, evaluated = EvaluationRows(run_dir, name, tuple(chosen)), 0
        print(f"following {run_dir} on {parts.device}, to {rows.path}", flush=True)
        for step in _new_steps(config, rows, interrupted):
            try:
                checkpoint = catalog.load_step(run_dir, step)
            except DamagedError as error:
                print(error, flush=True)
                rows.steps.add(step)
                continue
            if checkpoint is None:  # training has removed it
                continue
            restore_weights(parts.state, checkpoint.path, checkpoint.archive)
            results: dict[str, Mapping[str, float | int]] = {}
            for key, evaluation in chosen.items():
                means = evaluation.run(interrupted)
                if means is None:
                    break
                results[key] = means
            if len(results) < len(chosen):
                break
            rows.add(step, max(1, -(-step // parts.steps_per_epoch)), results)
            evaluated += 1
            shown = (f"{key} {metrics.brief(m, parts.task.metrics)}" for key, m in results.items())
            print(f"step {step:,}: {'; '.join(shown)}", flush=True)
        rows.close()
        print(json.dumps({"evaluated": evaluated, "rows": str(rows.path)}))
        return signals.exit_status


def _new_steps(
    config: Config, rows: EvaluationRows, interrupted: Callable[[], bool]
) -> Iterator[int]:
    """Yields the steps of checkpoints that are not in `rows.steps`, the lowest first.

    Waits for new checkpoints until `interrupted` returns True or the run has ended: result.json
    exists, and `--max_hours` did not stop the run, or no process has trained the run for
    `--follow_timeout` seconds. The caller must add each step to `rows.steps`, unless the checkpoint
    has been removed.
    """
    run_dir, idle_since = config.run.run_dir, time.monotonic()
    known: catalog.KnownSteps = {}
    while not interrupted():
        result = _result(run_dir)  # before the checkpoints, which are saved before it
        if new := catalog.saved_steps(run_dir, known).keys() - rows.steps:
            yield min(new)
            idle_since = time.monotonic()
            continue
        if result is not None and result.get("stopped_by") != "max_hours":
            return
        now = time.monotonic()
        if in_use(run_dir):
            idle_since = now
        elif now - idle_since > config.report.follow_timeout:
            print(
                f"no process has trained {run_dir} for {config.report.follow_timeout} s "
                "(--follow_timeout)",
                flush=True,
            )
            return
        time.sleep(_POLL)


def _folder(name: str, split: str) -> str:
    """Returns the name of the TensorBoard directory of a split, such as "follow_validation"."""
    words = "".join(each if each.isalnum() else "_" for each in split).strip("_")
    return f"{name}_{words}"


def _result(run_dir: str) -> dict[str, Any] | None:
    try:
        return run_directory.read_result(run_dir)
    except ValueError:  # it is being replaced
        return None


class EvaluationRows:
    """Writer of evaluations/NAME.jsonl and of TensorBoard event files with the same metrics.

    Rows of earlier processes are kept. Of a step without a row for each of `splits`, which a kill
    has cut short, those of `splits` are removed from the file. The event files are replaced by new
    ones with the rows that are kept.

    Args:
      run_dir: run directory.
      name: name of the evaluation, NAME in the paths.
      splits: names of the splits that are evaluated at every step.

    Attributes:
      path: path of evaluations/NAME.jsonl.
      steps: steps that are evaluated already, or whose checkpoint is damaged.

    Raises:
      ValueError: if a line of the file is not valid JSON, or if another process writes the file.
      OSError: if the file cannot be read or written.
      tf.errors.OpError: if an event file cannot be written.
    """

    def __init__(self, run_dir: str, name: str, splits: tuple[str, ...]) -> None:
        self.path = Path(run_dir, "evaluations", f"{name}.jsonl")
        self.path.parent.mkdir(exist_ok=True)
        # Held until the process ends.
        self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ValueError(
                f"{self.path} is in use by another --follow: give another --evaluation_name"
            ) from None
        rows = self._whole_rows(splits)
        self.steps = {row["step"] for row in rows if row["split"] in splits}
        replace_file(str(self.path), "".join(json.dumps(row) + "\n" for row in rows))
        # The event files are written again, because a kill may have come between file and event.
        self._files = {}
        for split in splits:
            folder = os.path.join(run_dir, "tensorboard", _folder(name, split))
            shutil.rmtree(folder, ignore_errors=True)
            self._files[split] = EventFile(folder)
        for row in rows:
            self._draw(row)

    def _whole_rows(self, splits: tuple[str, ...]) -> list[dict[str, Any]]:
        """Returns the rows of the file, less those of `splits` of a step that lacks one of them.

        Raises the errors of `metric_history.read_rows`.
        """
        rows = read_rows(str(self.path))
        present: dict[int, set[str]] = {}
        for row in rows:
            present.setdefault(row["step"], set()).add(row["split"])
        return [
            row for row in rows if row["split"] not in splits or present[row["step"]] >= set(splits)
        ]

    def add(self, step: int, epoch: int, results: Mapping[str, Mapping[str, float | int]]) -> None:
        """Appends a row per split to the file and to the event files, and adds `step` to `steps`.

        Args:
          step: number of steps of the evaluated checkpoint.
          epoch: epoch that contains `step` or ends at it, counted from 1.
          results: metrics by name, for each split.

        Raises:
          OSError: if the file cannot be written.
          tf.errors.OpError: if an event file cannot be written.
        """
        rows = [
            jsonable({"step": step, "epoch": epoch, "split": split, **values})
            for split, values in results.items()
        ]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            self._draw(row)
        self.steps.add(step)

    def _draw(self, row: Mapping[str, Any]) -> None:
        named = ("step", "epoch", "split", "examples")
        values = {
            key: float("nan") if value is None else value
            for key, value in row.items()
            if key not in named
        }
        if (file := self._files.get(row["split"])) is not None:
            file.add(row["step"], values)
            file.flush()

    def close(self) -> None:
        """Closes the event files, and releases the lock."""
        for file in self._files.values():
            file.close()
        os.close(self._lock)
