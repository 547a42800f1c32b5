"""Results of a verification: findings of checks, verdicts on laws, and the certificate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.core.metrics import jsonable
from engine.verify.differences import Difference

# Root causes first: a broken law may be the only reason why those after it are broken. For example,
# runs on different data differ (L4), nondeterministic runs cannot be compared (L3), and a trace or
# an untracked variable also affects micro-batches and replicas (L6, L5).
ROOT_CAUSE_ORDER = ("L4", "L3", "L6", "L5", "L2", "L1", "L7", "L8")


class Finding(NamedTuple):
    """The result of a law's check; its fields have the same meaning as those of `Verdict`."""

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


def not_compared(reason: str) -> Finding:
    """Returns a finding with `passed` None, for a law that cannot be checked, and the reason."""
    return Finding(None, "", reason)


def apart(done: str, difference: Difference, found: str = "") -> Finding:
    """Returns a finding that passes if `difference`, described by `found`, is within its bound."""
    found = found or str(difference)
    return Finding(difference.within, done, found, difference.measured, difference.bound)


def same_bits(done: str, differing: Sequence[str], of: int, more: Sequence[str] = ()) -> Finding:
    """Returns a finding that passes if `differing` and `more` are empty.

    These are the names of the tensors, out of `of`, that differ bitwise, and other problems.
    """
    found = f"the same bits in all {of} tensors"
    if differing:
        found = f"{len(differing)} of {of} tensors differ: {few(differing)}"
    count = len(differing) + len(more)
    return Finding(not count, done, "; ".join([found, *more]), count, 0)


def few(names: Sequence[str]) -> str:
    """Returns the first three names, separated by commas, and an ellipsis if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@dataclass(frozen=True)
class Verdict:
    """The result of checking one law of docs/concepts/laws.md."""

    law: str  # its number, "L1" to "L8"
    name: str
    passed: bool | None  # whether the law holds; None if not compared, for the reason in `found`
    done: str  # description of what the check did
    found: str  # description of what the check found
    measured: float | None  # number of problems, or a relative difference; None: neither
    bound: float | None  # largest `measured` that passes
    seconds: float  # duration of the check

    @property
    def line(self) -> str:
        """One line of text: the law, what was done and found, the status, and the duration."""
        status = {True: "ok", False: "BROKEN", None: "not compared"}[self.passed]
        return f"{self._description} ... {status} {self.seconds:.1f} s"

    @property
    def _description(self) -> str:
        done = f"{self.done}: " if self.done else ""
        return f"{self.law} {self.name}: {done}{self.found}"


@dataclass(frozen=True)
class Certificate:
    """The verdicts on all laws for one configuration and one machine.

    Attributes:
      verdicts: verdict on each law, L1 to L8.
      config: values of all options, by name.
      data: data set, numbers of examples for training and evaluation, feed, and numbers of steps.
      device: devices that the configuration trains on, devices that are compared, and how they
        differ from the configured ones.
      versions: versions of Tapeline, TensorFlow, NumPy and Python.
      seconds: duration of the verification.
    """

    verdicts: tuple[Verdict, ...]
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no law is broken; a law that was not compared does not count as broken."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """Numbers of the broken laws, such as "L7", in the order of `ROOT_CAUSE_ORDER`."""
        return [law for law in ROOT_CAUSE_ORDER if self[law].passed is False]

    def __getitem__(self, law: str) -> Verdict:
        """Returns the verdict on a law by its number, such as "L7"."""
        return {verdict.law: verdict for verdict in self.verdicts}[law]

    @property
    def summary(self) -> str:
        """One line: FAIL and the broken laws, or PASS and the laws that were not compared."""
        if self.broken:
            root, *others = self.broken
            also = f"; also broken: {', '.join(others)}" if others else ""
            return f"FAIL {self[root]._description}{also}"
        skipped = [f"{v.law} not compared ({v.found})" for v in self.verdicts if v.passed is None]
        held = f"{len(self.verdicts) - len(skipped)} laws hold"
        return f"PASS: {', '.join([held, *skipped])} ({self.seconds:.0f} s)"

    @property
    def json(self) -> str:
        """The certificate as one line of JSON."""
        laws = [
            jsonable({**dataclasses.asdict(v), "seconds": round(v.seconds, 2)})
            for v in self.verdicts
        ]
        content = {
            "passed": self.passed,
            "broken": self.broken,
            "laws": laws,
            "config": jsonable(self.config),
            "data": self.data,
            "device": self.device,
            "versions": self.versions,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(content)
