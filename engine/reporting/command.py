"""`--mode=report`: a run, or a data set that nothing was trained on yet, to be looked at."""

from __future__ import annotations

from engine.config import Config
from engine.feeding import open_source
from engine.keeping import catalogue, run_directory
from engine.keeping.signals import Signals
from engine.reporting import report
from engine.weights import restored


def run(config: Config) -> int:
    """Writes the report, and says where.

    Args:
      config: the run's options; of a run that there is not yet, what it would be trained with.

    Returns:
      The exit status.

    Raises:
      ValueError: when the data set or the weights that are asked for are not there.
      OSError: when a file cannot be written.
    """
    run_dir = config.run.run_dir
    with Signals() as signals:
        newest = catalogue.newest_of(run_dir)
        if newest is None:
            source = open_source(config)
            print(f"{run_dir} holds no run yet: a report on {source.name} alone", flush=True)
            about = report.about_data(source, config, lambda: bool(signals.received))
            if about is not None:
                print(report.write(run_dir, about), flush=True)
            return signals.exit_status
        found = restored(config)
        print(f"reporting on {found.words}, {found.path}, on {found.parts.device}", flush=True)
        best = catalogue.read_facts(newest)["best_step"]
        about = report.about_run(
            found.parts,
            run_directory.result_of(run_dir),
            found.words,
            best if best >= 0 else None,
            lambda: bool(signals.received),
        )
        found.parts.close()
        if about is not None:
            print(report.write(run_dir, about), flush=True)
        return signals.exit_status
