"""`--mode=tune`: measures candidates, and writes the options of the fastest one as a flagfile."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import engine
from engine.config.option import written
from engine.config.schema import Config
from engine.logging.progress import Progress
from engine.runtime import onednn
from engine.runtime.atomic_files import replace_file
from engine.runtime.errors import Interrupted
from engine.runtime.processor import this_processor
from engine.runtime.signals import Signals
from engine.tune import choices
from engine.tune.choices import Candidate
from engine.tune.contest import ComparisonResult, contest
from pipelines import usable_cores


def run(config: Config) -> int:
    """Finds a configuration's fastest options and writes them to the flagfile `--tuned_flags`.

    Writes nothing to `run_dir`.

    Returns:
      The exit status: 0; 128 + the signal number, such as 130 or 143, when stopped by a signal.

    Raises:
      ValueError: for invalid input, or when user code, such as a model of `--load`, fails.
      RuntimeError: when the configuration cannot be trained.
      OSError: when the flagfile cannot be written.
    """
    if config.devices.strategy == "multi_worker":
        raise ValueError(
            "--mode=tune measures one machine: leave --strategy=multi_worker out, and give all "
            "machines what it finds"
        )
    path = config.tune.tuned_flags
    if not path or not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise ValueError(f"--tuned_flags={path}: give a file in a directory that can be written to")
    bar = Progress(config.logging.progress, "tuning", 0, unit="blocks")
    with Signals() as signals:

        def poll() -> None:
            bar.advance(1)
            if signals.received:
                raise Interrupted

        try:
            best, results = _tune(config, bar, poll)
        except Interrupted:
            bar.line(f"stopped by signal {signals.received}; nothing was written")
            return signals.exit_status
        finally:
            bar.close()
    try:
        replace_file(path, _flagfile(config, best, results))
    except OSError as error:
        raise OSError(f"--tuned_flags={path}: {error.strerror or error}") from error
    print(f"chosen: {best}; written to {path}: give --flagfile={path} after the other options")
    return 0


def _tune(
    config: Config, bar: Progress, poll: Callable[[], None]
) -> tuple[Candidate, list[ComparisonResult]]:
    def compared(
        title: str, best: Candidate, others: Callable[[dict[str, Any]], Iterable[Candidate]]
    ) -> ComparisonResult:
        bar.line(f"tuning: {title}")
        result = contest(config, best, others, poll)
        for line in _lines(result):
            bar.line(line)
        return result

    def initial(metadata: dict[str, Any]) -> list[Candidate]:
        candidates = choices.first(metadata["jit"], metadata["threads"], usable_cores())
        # XLA compiles the loop for one device only, and without shards.
        alone = "mirrored" not in metadata["device"] and not config.devices.shards
        return [c for c in candidates if c.jit != "loop" or alone]

    first = compared("what XLA compiles, and threads", Candidate(), initial)
    best, feed = first.best(), first.metadata["feed"]
    # A user's own variable has precedence over the option, and a GPU does not use oneDNN.
    fixed = onednn.of_environment() or "GPU" in first.metadata["device"]
    now = "" if fixed or not this_processor().has_onednn else first.metadata["onednn"]
    second = compared(f"what is around {best}", best, lambda _: choices.around(best, feed, now))
    return second.best(), [first, second]


def _lines(result: ComparisonResult) -> Iterator[str]:
    """Yields a line per candidate, the fastest first: steps/s, speedup, options, or the error."""
    for candidate, ratio in sorted(result.ratios.items(), key=lambda item: -item[1]):
        if candidate in result.errors:
            yield f"         -   {candidate}: {result.errors[candidate]}"
        else:
            yield f"{result.rates[candidate]:10,.1f} steps/s  x{ratio:.3f}  {candidate}"


def _flagfile(config: Config, best: Candidate, results: list[ComparisonResult]) -> str:
    """Returns the text of the flagfile: the best options, with the measurements as comments."""
    network = f"{config.model.model} on {config.data.dataset}"
    lines = [
        f"# Tuned on {time.strftime('%Y-%m-%d')} by Tapeline {engine.__version__} for {network}, "
        f"batch {config.training.global_batch_size}, {config.precision.precision},",
        f"# on {results[0].metadata['device']}, {usable_cores()} cores. Steps per second, and how "
        "many times those of the first choice:",
    ]
    for result in results:
        lines += ["#", *(f"# {line}" for line in _lines(result))]
    options = [f"--{name}={written(value)}" for name, value in dataclasses.asdict(best).items()]
    return "\n".join([*lines, "", *options]) + "\n"
