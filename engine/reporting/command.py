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
    """Writes the report on a run and prints its path, unless a signal stops its construction.

    Args:
      config: options of the run.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the data set or the requested weights do not exist.
      OSError: if the checkpoint is damaged or a file cannot be written.
      RuntimeError: if TensorFlow fails.
    """
    with Signals() as signals:
        chosen, outcome = _read(config)
        with restored(config, chosen) as found:
            print(f"reporting on {found.words}, {found.path}, on {found.parts.device}", flush=True)
            best = chosen.snapshot.best_step
            about = report.build_run_report(
                found.parts,
                outcome,
                found.words,
                best if best >= 0 else None,
                lambda: bool(signals.received),
            )
        if about is not None:
            print(report.write(config.run.run_dir, about), flush=True)
        return signals.exit_status


def run_on_data(config: Config) -> int:
    """Writes a report on the data set alone, before the run exists.

    Args:
      config: options of the future run.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the data set does not exist.
      OSError: if a file cannot be written.
    """
    run_dir = config.run.run_dir
    with Signals() as signals:
        source = open_source(config)
        print(f"{run_dir} holds no run yet: a report on {source.name} alone", flush=True)
        about = report.build_data_report(source, config, lambda: bool(signals.received))
        if about is not None:
            print(report.write(run_dir, about), flush=True)
        return signals.exit_status


def _read(config: Config) -> tuple[SelectedCheckpoint, dict[str, Any] | None]:
    """Returns the selected checkpoint and the content of result.json, which belong together.

    A concurrent training changes result.json only when the run ends, which writes the file, and
    when an ended run is resumed, which removes it. Both are therefore read again until result.json
    is the same before and after the checkpoint is loaded.
    """
    run_dir = config.run.run_dir
    outcome = run_directory.read_result(run_dir)
    while True:
        before, chosen = outcome, choose(config)
        outcome = run_directory.read_result(run_dir)
        if outcome == before:
            return chosen, outcome
