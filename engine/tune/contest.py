"""Compares the speed of candidates, one process each, by alternating blocks of steps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from engine.config import flags
from engine.config.schema import Config
from engine.tune.choices import Candidate
from engine.tune.measured_process import MeasuredProcess

ROUNDS = 11
# {number of rounds: fraction of the best speed below which a candidate is eliminated}
_ELIMINATE_BELOW = {1: 0.5, 3: 0.8, 6: 0.93}
_MIN_SPEEDUP = 1.01  # over the first candidate, for another one to be chosen


class CandidateProcess(MeasuredProcess):
    """A process that trains with a candidate's options and measures the steps per second."""

    def __init__(self, config: Config, candidate: Candidate) -> None:
        self.candidate = candidate
        lines = flags.flagfile(candidate.applied(config)).splitlines()
        super().__init__([line for line in lines if line.startswith("--")])


@dataclasses.dataclass
class ComparisonResult:
    """Speeds and errors of compared candidates; ratios and rates are 0 where there is an error."""

    metadata: dict[str, Any]  # `CandidateProcess.metadata` of the first candidate
    # Speedup over the first candidate: median ratio of steps per second in the rounds of both.
    ratios: dict[Candidate, float] = dataclasses.field(default_factory=dict)
    rates: dict[Candidate, float] = dataclasses.field(default_factory=dict)  # median steps/s
    errors: dict[Candidate, str] = dataclasses.field(default_factory=dict)

    def best(self) -> Candidate:
        """Returns the fastest candidate, or the first if no speedup reaches `_MIN_SPEEDUP`."""
        fastest = max(self.ratios, key=self.ratios.__getitem__)
        return fastest if self.ratios[fastest] >= _MIN_SPEEDUP else next(iter(self.ratios))


def contest(
    config: Config,
    choice: Candidate,
    others: Callable[[dict[str, Any]], Iterable[Candidate]],
    poll: Callable[[], None],
) -> ComparisonResult:
    """Compares the training speed, in steps/s, of candidate option values with that of `choice`.

    Each candidate trains in a separate process. The processes take turns, and slow ones are
    dropped early. A candidate that cannot train, or fails while it is measured, is in `errors` of
    the result.

    Args:
      config: all options; those of a candidate replace some.
      choice: candidate that the others are compared with.
      others: returns the other candidates for the `metadata` of the process of `choice`.
      poll: called periodically; an exception that `poll` raises ends the comparison.

    Raises:
      ValueError: when the options of `choice` are invalid, or when user code, such as a model of
        `--load`, raises an exception in the process of `choice` before the measurement.
      RuntimeError: when `choice` cannot train, or fails while it is measured.
    """
    with contextlib.ExitStack() as stack:

        def started(candidate: Candidate) -> CandidateProcess:
            return stack.enter_context(contextlib.closing(CandidateProcess(config, candidate)))

        first = started(choice)
        poll()
        if not first.ready():
            kind = ValueError if first.metadata.get("bad_input") else RuntimeError
            raise kind(first.error)
        result = ComparisonResult(first.metadata)
        processes = [first, *map(started, others(first.metadata))]
        running = [first]
        for process in processes[1:]:
            poll()
            if process.ready():
                running.append(process)
        for number in range(ROUNDS):
            offset = number % len(running)
            for process in running[offset:] + running[:offset]:
                poll()
                process.measure()
            if first.error:
                raise RuntimeError(first.error)
            if share := _ELIMINATE_BELOW.get(number + 1):
                least = share * max(_ratio(process, first) for process in running)
                running = [p for p in running if p is first or _ratio(p, first) >= least]
    for process in processes:
        measured = not process.error
        if process.error:
            result.errors[process.candidate] = process.error
        result.ratios[process.candidate] = _ratio(process, first) if measured else 0.0
        result.rates[process.candidate] = float(np.median(process.rates)) if measured else 0.0
    return result


def _ratio(one: CandidateProcess, other: CandidateProcess) -> float:
    both = zip(one.rates, other.rates, strict=False)
    return float(np.median([a / b if b else 0.0 for a, b in both]))
