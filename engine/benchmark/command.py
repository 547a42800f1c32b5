"""`--mode=benchmark`: measures training speed, then prints a table and one line of JSON."""

from __future__ import annotations

import contextlib
import json

from engine.benchmark import report
from engine.benchmark.measurement import ROUNDS, measure
from engine.config.schema import Config
from engine.core.metrics import jsonable
from engine.logging.progress import Progress
from engine.runtime.errors import Interrupted
from engine.runtime.signals import Signals


def run(config: Config) -> int:
    """Benchmarks a configuration and prints the measurements; writes nothing to `run_dir`.

    Returns:
      The exit status: 0; 128 + the signal number, such as 130 or 143, when stopped by a signal.

    Raises:
      ValueError: for invalid input, such as several workers.
      OSError: when a data file cannot be read, or a temporary file cannot be written.
      RuntimeError: when TensorFlow fails, or for more bad steps than training may skip.
    """
    if config.devices.strategy == "multi_worker":
        raise ValueError(
            "--mode=benchmark measures one machine: leave --strategy=multi_worker out, or time a "
            "training, whose result.json has steps_per_second"
        )
    bar = Progress(config.logging.progress, "benchmark", ROUNDS, unit="rounds")
    with Signals() as signals, contextlib.closing(bar):
        try:
            measurement = measure(config, bar, signals)
        except Interrupted:
            bar.line(f"stopped by signal {signals.received}; nothing was written")
            return signals.exit_status
    results = report.figures(measurement)
    print(report.table(results))
    print(json.dumps(jsonable(results)), flush=True)
    return 0
