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
    """Writes a report on a run (HTML, plots, CSV) and prints its paths, unless a signal stops it.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the data set or the weights do not exist, or result.json is unreadable.
      OSError: if the checkpoint is damaged or a file cannot be written.
      RuntimeError: if TensorFlow fails.
    """
    with Signals() as signals:
        checkpoint, outcome = _read(config)
        with restored(config, checkpoint) as run:
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
    """Writes a report on the data set of a run that has not started; returns and raises as `run`.

    The report has the data set's splits, pixel statistics and examples, and the options.
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
    """Loads the selected checkpoint and the content of result.json at that time; None if absent.

    Training may run concurrently, but changes result.json only when the run ends or resumes after
    its end. So both are loaded again until result.json has not changed during the load.
    """
    outcome = run_directory.read_result(config.run.run_dir)
    while True:
        before, checkpoint = outcome, choose(config)
        outcome = run_directory.read_result(config.run.run_dir)
        if outcome == before:
            return checkpoint, outcome
