"""Compares candidates, each in its own process, by interleaved blocks of steps."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import engine
from engine.config import flags
from engine.config.schema import Config
from engine.tune.choices import Candidate

ROUNDS = 11
_SECONDS = 0.4  # approximate duration of a block
# {number of rounds: fraction of the best speed below which a candidate is eliminated}
_HOPELESS = {1: 0.5, 3: 0.8, 6: 0.93}
_WORTH = 1.01  # minimum speedup over the first candidate for another one to be chosen


class CandidateProcess:
    """Measures a candidate in a separate process.

    Attributes:
      choice: candidate.
      rates: steps per second of each block.
      facts: first answer of the process, see `contestant`; empty before `ready`.

    Args:
      config: all options.
      choice: candidate whose options replace those in `config`.
    """

    def __init__(self, config: Config, choice: Candidate) -> None:
        self.choice, self.rates = choice, list[float]()
        self.facts: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.tune.contestant", *_arguments(choice.applied(config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
            start_new_session=True,  # Ctrl-C reaches the parent process only
        )

    def ready(self) -> bool:
        """Waits until the process is ready; sets `facts`. Returns False if it reports an error."""
        self.facts = self._answer()
        return "error" not in self.facts

    def measure(self) -> None:
        """Measures a block and records its steps per second; 0 if the process fails."""
        assert self._process.stdin is not None
        answer: dict[str, Any] = {}
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._process.stdin.write(f"{_SECONDS}\n")
            self._process.stdin.flush()
            answer = self._answer()
        self.rates.append(answer["steps"] / answer["seconds"] if "seconds" in answer else 0.0)

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}


class ComparisonResult:
    """The results of a contest.

    Attributes:
      ratios: {candidate: its speedup over the first candidate, the median of the ratios of steps
        per second in the rounds of both}; 0 for a candidate that could not be measured.
      rates: {candidate: median steps per second}; 0 if it could not be measured.
      errors: {candidate: error message}, for those that could not be measured.
      facts: `CandidateProcess.facts` of the first candidate.
    """

    def __init__(self) -> None:
        self.ratios: dict[Candidate, float] = {}
        self.rates: dict[Candidate, float] = {}
        self.errors: dict[Candidate, str] = {}
        self.facts: dict[str, Any] = {}

    def best(self) -> Candidate:
        """Returns the fastest candidate, or the first if no speedup reaches `_WORTH`."""
        ahead = {choice: ratio for choice, ratio in self.ratios.items() if ratio >= _WORTH}
        return max(ahead, key=lambda choice: ahead[choice]) if ahead else next(iter(self.ratios))


def contest(
    config: Config,
    choice: Candidate,
    others: Callable[[dict[str, Any]], Iterable[Candidate]],
    poll: Callable[[], None],
) -> ComparisonResult:
    """Compares candidates with a first one, which must be trainable.

    Args:
      config: all options.
      choice: the first candidate.
      others: returns the candidates to compare with the first one, given its
        `CandidateProcess.facts`.
      poll: called periodically; an exception that it raises ends the contest.

    Raises:
      ValueError: when the options of the first candidate are invalid.
      RuntimeError: when the first candidate fails.
    """
    contestants: list[CandidateProcess] = []
    found = ComparisonResult()
    try:
        first = CandidateProcess(config, choice)
        contestants.append(first)
        poll()
        if not first.ready():
            kind = ValueError if first.facts.get("bad_input") else RuntimeError
            raise kind(first.facts["error"])
        found.facts = first.facts
        for other in others(first.facts):
            contestants.append(CandidateProcess(config, other))
        running = [first]
        for each in contestants[1:]:
            poll()
            if each.ready():
                running.append(each)
            else:
                found.errors[each.choice] = each.facts["error"]
        for number in range(ROUNDS):
            at = number % len(running)
            for each in running[at:] + running[:at]:
                poll()
                each.measure()
            if least := _HOPELESS.get(number + 1):
                best = max(_ratio(each, first) for each in running)
                running = [
                    each for each in running if each is first or _ratio(each, first) >= least * best
                ]
    finally:
        for each in contestants:
            each.close()
    for each in contestants:
        measured = each.choice not in found.errors
        found.ratios[each.choice] = _ratio(each, first) if measured else 0.0
        found.rates[each.choice] = float(np.median(each.rates)) if measured else 0.0
    return found


def _ratio(one: CandidateProcess, other: CandidateProcess) -> float:
    both = zip(one.rates, other.rates, strict=False)
    return float(np.median([a / b if b else 0.0 for a, b in both]))


def _search_path() -> list[str]:
    """Returns the directory that contains this `engine` package, then the value of PYTHONPATH."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(engine.__file__)))
    return [root, *filter(None, [os.environ.get("PYTHONPATH")])]


def _arguments(config: Config) -> list[str]:
    lines = flags.flagfile(config).splitlines()
    return [line for line in lines if line.startswith("--") and not line.startswith("--mode=")]
