"""Implements `--mode=report`: writes a report on a run, or on a data set before training."""

from __future__ import annotations

from typing import Any

from engine.assembly import run_directory
from engine.assembly.data import open_source
from engine.assembly.trained import SelectedCheckpoint, choose, restored
from engine.config.schema import Config
from engine.reporting import report
from engine.runtime.signals import Signals


def run(config: Config) -> int:
    """Writes the report on a run (HTML, plots, CSV) to run_dir and prints the paths.

    A signal before the last figure is drawn stops the report: no file is written.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the run has no weights that `--weights` selects, if the options or the data set
        do not fit the run, or if the data set, result.json or metrics.jsonl cannot be used.
      OSError: if the checkpoint is damaged, or a file cannot be read or written.
      RuntimeError, tf.errors.OpError: if TensorFlow fails.
      ImportError, AttributeError: if there is no function `task.section`.
    """
    with Signals() as signals:
        checkpoint, outcome = _read(config)
        with restored(config, checkpoint, lambda: bool(signals.received)) as run:
            print(f"reporting on {run.description}, {run.path}, on {run.parts.device}", flush=True)
            best = checkpoint.snapshot.best_step
            content = report.build_run_report(
                run.parts,
                outcome,
                run.description,
                best if best >= 0 else None,
                lambda: bool(signals.received),
            )
        if content is not None:
            print(report.write(config.run.run_dir, content), flush=True)
        return signals.exit_status


def run_on_data(config: Config) -> int:
    """Writes the report on the data set of a run without checkpoints, to run_dir; prints the paths.

    The report describes the data set (splits, statistics, examples of images) and the options. A
    signal before the last figure is drawn stops the report: no file is written.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the data set or a split cannot be used, or is damaged.
      OSError: if a file cannot be read or written.
      tf.errors.OpError: if TensorFlow fails.
    """
    run_dir = config.run.run_dir
    with Signals() as signals:
        source = open_source(config)
        print(f"{run_dir} holds no run yet: a report on {source.name} alone", flush=True)
        content = report.build_data_report(source, config, lambda: bool(signals.received))
        if content is not None:
            print(report.write(run_dir, content), flush=True)
        return signals.exit_status


def _read(config: Config) -> tuple[SelectedCheckpoint, dict[str, Any] | None]:
    """Loads the checkpoint that `--weights` selects, and result.json (None if it does not exist).

    A concurrent training process changes result.json only when the run ends, or resumes after the
    end. Both are loaded again until result.json does not change during the load, so that the
    checkpoint and result.json belong together. Raises as `choose`, and ValueError if result.json
    cannot be read.
    """
    outcome = run_directory.read_result(config.run.run_dir)
    while True:
        before, checkpoint = outcome, choose(config)
        outcome = run_directory.read_result(config.run.run_dir)
        if outcome == before:
            return checkpoint, outcome
