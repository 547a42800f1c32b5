"""`--mode=tune`: measures candidates, and writes the options of the fastest one as a flagfile."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import engine
from engine.config.option import written
from engine.config.schema import Config
from engine.logging.progress import Progress
from engine.runtime.atomic_files import replace_file
from engine.runtime.errors import Interrupted
from engine.runtime.signals import Signals
from engine.tune import choices
from engine.tune.choices import Candidate
from engine.tune.contest import ComparisonResult, contest
from pipelines import usable_cores


def run(config: Config) -> int:
    """Tunes a configuration and writes the flagfile; writes nothing to `run_dir`.

    Args:
      config: all options.

    Returns:
      The exit status: 0; 130 or 143 when stopped by a signal.

    Raises:
      ValueError: for invalid input.
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
            best, found = _tune(config, bar, poll)
        except Interrupted:
            bar.line(f"stopped by signal {signals.received}; nothing was written")
            return signals.exit_status
        finally:
            bar.close()
    try:
        replace_file(path, _flagfile(config, best, found))
    except OSError as error:
        raise OSError(f"--tuned_flags={path}: {error.strerror or error}") from error
    print(f"chosen: {best}; written to {path}: give --flagfile={path} after the other options")
    return 0


def _tune(
    config: Config, bar: Progress, poll: Callable[[], None]
) -> tuple[Candidate, list[ComparisonResult]]:
    bar.line("tuning: what XLA compiles, and threads")
    cores = usable_cores()

    def first(facts: dict[str, Any]) -> list[Candidate]:
        tried = choices.first(facts["jit"], facts["threads"], cores)
        # XLA compiles for one device only.
        return [each for each in tried if "mirrored" not in facts["device"] or each.jit == "auto"]

    one = contest(config, Candidate(), first, poll)
    _tell(bar, one)
    best = one.best()
    bar.line(f"tuning: what is around {best}")
    feed = one.facts["feed"]
    two = contest(config, best, lambda _: choices.around(best, feed, cores), poll)
    _tell(bar, two)
    return two.best(), [one, two]


def _tell(bar: Progress, found: ComparisonResult) -> None:
    for line in _lines(found):
        bar.line(line)


def _lines(found: ComparisonResult) -> list[str]:
    lines = []
    for choice in sorted(found.ratios, key=lambda each: -found.ratios[each]):
        if choice in found.errors:
            lines.append(f"         -   {choice}: {found.errors[choice]}")
        else:
            rate = f"{found.rates[choice]:10,.1f} steps/s"
            lines.append(f"{rate}  x{found.ratios[choice]:.3f}  {choice}")
    return lines


def _flagfile(config: Config, best: Candidate, found: list[ComparisonResult]) -> str:
    """Returns the text of the flagfile: the best options, with the measurements as comments."""
    network = f"{config.model.model} on {config.data.dataset}"
    lines = [
        f"# Tuned on {time.strftime('%Y-%m-%d')} by Tapeline {engine.__version__} for {network}, "
        f"batch {config.training.global_batch_size}, {config.precision.precision},",
        f"# on {found[0].facts['device']}, {usable_cores()} cores. Steps per second, and how many "
        "times those of the first choice:",
    ]
    for contest_found in found:
        lines += ["#", *(f"# {line}" for line in _lines(contest_found))]
    lines.append("")
    lines += [
        f"--{field.name}={written(getattr(best, field.name))}" for field in dataclasses.fields(best)
    ]
    return "\n".join(lines) + "\n"
