"""`--mode=report`: a run, or a data set that nothing was trained on yet, to be looked at."""

from __future__ import annotations

from typing import Any

from engine.config import Config
from engine.feeding import open_source
from engine.keeping import run_directory
from engine.keeping.signals import Signals
from engine.reporting import report
from engine.weights import Chosen, choose, restored


def run(config: Config) -> int:
    """Writes the report on a run, and says where.

    Args:
      config: the run's options.

    Returns:
      The exit status.

    Raises:
      ValueError: when the data set or the weights that are asked for are not there.
      OSError: when a file cannot be written.
    """
    with Signals() as signals:
        chosen, outcome = _read(config)
        found = restored(config, chosen)
        print(f"reporting on {found.words}, {found.path}, on {found.parts.device}", flush=True)
        best = chosen.snapshot.best_step
        about = report.about_run(
            found.parts,
            outcome,
            found.words,
            best if best >= 0 else None,
            lambda: bool(signals.received),
        )
        found.parts.close()
        if about is not None:
            print(report.write(config.run.run_dir, about), flush=True)
        return signals.exit_status


def run_on_data(config: Config) -> int:
    """Writes a report on the data set alone, where there is no run yet.

    Args:
      config: what would be trained with.

    Returns:
      The exit status.

    Raises:
      ValueError: when the data set is not there.
      OSError: when a file cannot be written.
    """
    run_dir = config.run.run_dir
    with Signals() as signals:
        source = open_source(config)
        print(f"{run_dir} holds no run yet: a report on {source.name} alone", flush=True)
        about = report.about_data(source, config, lambda: bool(signals.received))
        if about is not None:
            print(report.write(run_dir, about), flush=True)
        return signals.exit_status


def _read(config: Config) -> tuple[Chosen, dict[str, Any] | None]:
    """The weights, and what result.json says of the same state of the run.

    A run that ends, or that goes on after its end, changes both: they are read again until
    result.json is the same before and after. It changes at the ends of a run alone.
    """
    run_dir = config.run.run_dir
    outcome = run_directory.result_of(run_dir)
    while True:
        before, chosen = outcome, choose(config)
        outcome = run_directory.result_of(run_dir)
        if outcome == before:
            return chosen, outcome
