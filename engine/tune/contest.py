"""Choices measured against each other: processes that are asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import engine
from engine import flags
from engine.config import Config
from engine.tune.choices import Choice

ROUNDS = 11
_SECONDS = 0.4  # of a block
_HOPELESS = {1: 0.5, 3: 0.8, 6: 0.93}  # after so many rounds: of the best, below which none goes on
_WORTH = 1.01  # of what it is now, from which on another choice is taken


class Contestant:
    """A process with a choice.

    Args:
      config: all options.
      choice: in place of those in it.
    """

    def __init__(self, config: Config, choice: Choice) -> None:
        self.choice, self.rates = choice, list[float]()
        self.facts: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.tune.contestant", *_arguments(choice.applied(config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
            start_new_session=True,  # a Ctrl-C is for the one who asks
        )

    def ready(self) -> bool:
        """Waits for it; whether it can be measured. `facts` tell what it is, or "error"."""
        self.facts = self._answer()
        return "error" not in self.facts

    def measure(self) -> None:
        """Asks for a block, and keeps its steps per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{_SECONDS}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.rates.append(answer["steps"] / answer["seconds"] if "seconds" in answer else 0.0)

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "it died"}


class Found:
    """What a contest found.

    ratios: {choice: steps per second over those of the first choice, median over the rounds that
      both took}; 0 for one that could not be measured.
    rates: {choice: median steps per second}; likewise.
    errors: {choice: why it could not be measured}.
    facts: of the first choice.
    """

    def __init__(self) -> None:
        self.ratios: dict[Choice, float] = {}
        self.rates: dict[Choice, float] = {}
        self.errors: dict[Choice, str] = {}
        self.facts: dict[str, Any] = {}

    def best(self) -> Choice:
        """The fastest, or the first where none is worth leaving it."""
        ahead = {choice: ratio for choice, ratio in self.ratios.items() if ratio >= _WORTH}
        return max(ahead, key=lambda choice: ahead[choice]) if ahead else next(iter(self.ratios))


def contest(
    config: Config,
    choice: Choice,
    others: Callable[[dict[str, Any]], Iterable[Choice]],
    poll: Callable[[], None],
) -> Found:
    """Measures choices against one, which must be possible.

    Args:
      config: all options.
      choice: that one.
      others: given what the one turns out to be, `Contestant.facts`, those to measure against it.
      poll: called now and then; what it raises ends the contest.

    Raises:
      ValueError: when that one is bad input.
      RuntimeError: when it fails.
    """
    contestants: list[Contestant] = []
    found = Found()
    try:
        first = Contestant(config, choice)
        contestants.append(first)
        poll()
        if not first.ready():
            kind = ValueError if first.facts.get("bad_input") else RuntimeError
            raise kind(first.facts["error"])
        found.facts = first.facts
        for other in others(first.facts):
            contestants.append(Contestant(config, other))
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


def _ratio(one: Contestant, other: Contestant) -> float:
    both = zip(one.rates, other.rates, strict=False)
    return float(np.median([a / b if b else 0.0 for a, b in both]))


def _search_path() -> list[str]:
    """Where this process found the engine, before what others are told."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(engine.__file__)))
    return [root, *filter(None, [os.environ.get("PYTHONPATH")])]


def _arguments(config: Config) -> list[str]:
    lines = flags.flagfile(config).splitlines()
    return [line for line in lines if line.startswith("--") and not line.startswith("--mode=")]
