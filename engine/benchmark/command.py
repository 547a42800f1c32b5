"""`--mode=benchmark`: measures, then prints a table and one line of JSON."""

from __future__ import annotations

import json

from engine.benchmark import report
from engine.benchmark.measurement import ROUNDS, measure
from engine.config.schema import Config
from engine.core.metrics import jsonable
from engine.logging.progress import Progress
from engine.runtime.errors import Interrupted
from engine.runtime.signals import Signals


def run(config: Config) -> int:
    """Benchmarks a configuration; writes nothing to `run_dir`.

    Args:
      config: all options.

    Returns:
      The exit status: 0; 130 or 143 when stopped by a signal.

    Raises:
      ValueError: for invalid input.
    """
    if config.devices.strategy == "multi_worker":
        raise ValueError(
            "--mode=benchmark measures one machine: leave --strategy=multi_worker out, or time a "
            "training, whose result.json has steps_per_second"
        )
    bar = Progress(config.logging.progress, "benchmark", ROUNDS, unit="rounds")

    def progress(doing: str, done: int) -> None:
        bar.describe(doing)
        bar.set(done)

    with Signals() as signals:
        try:
            measured = measure(
                config,
                tell=bar.line,
                progress=progress,
                interrupted=lambda: bool(signals.received),
            )
        except Interrupted:
            bar.line(f"stopped by signal {signals.received}; nothing was written")
            return signals.exit_status
        finally:
            bar.close()
    found = report.figures(measured)
    print(report.table(found))
    print(json.dumps(jsonable(found)), flush=True)
    return 0
