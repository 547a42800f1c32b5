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
    """Result of the check of a law: the fields of `Verdict` without law, name and duration."""

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


def not_compared(reason: str) -> Finding:
    """Returns the finding for a law that cannot be checked, with `passed` None and the reason."""
    return Finding(None, "", reason)


def bits_not_checked() -> Finding:
    """Returns the finding for a law of equal bits where `--deterministic=no` gives them up."""
    return not_compared("not checked: --deterministic=no")


def apart(done: str, difference: Difference, found: str = "") -> Finding:
    """Returns a finding that passes if `difference` is within its bound.

    Args:
      done: description of what the check did.
      difference: the largest difference that the check measured.
      found: description of what the check found; "": `difference` as text.
    """
    found = found or str(difference)
    return Finding(difference.within, done, found, difference.measured, difference.bound)


def same_bits(done: str, differing: Sequence[str], of: int, more: Sequence[str] = ()) -> Finding:
    """Returns a finding that passes if no tensors differ and there are no other problems.

    Args:
      done: description of what the check did.
      differing: names of the tensors that differ bitwise.
      of: number of tensors that were compared.
      more: descriptions of other problems.
    """
    found = f"the same bits in all {of} tensors"
    if differing:
        found = f"{len(differing)} of {of} tensors differ: {few(differing)}"
    count = len(differing) + len(more)
    return Finding(not count, done, "; ".join([found, *more]), count, 0)


def few(names: Sequence[str]) -> str:
    """Returns the first three names, separated by commas, and ", ..." if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@dataclass(frozen=True)
class Verdict:
    """Result of the check of one law of docs/concepts/laws.md."""

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
      data: data set, evaluated split, numbers of examples that are used and that exist, feed, and
        numbers of steps, by name.
      device: descriptions of the devices that the configuration trains on ("device") and of those
        that are compared ("one", "many"); number of replicas of the latter ("replicas"); and how
        the devices differ from the configured ones ("note", empty if they do not).
      versions: versions of Tapeline, TensorFlow, NumPy and Python, by name in lower case.
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
        """Returns the verdict on a law by number, such as "L7"; KeyError for an unknown number."""
        return {verdict.law: verdict for verdict in self.verdicts}[law]

    @property
    def summary(self) -> str:
        """One line of text about the result, which starts with FAIL or PASS.

        FAIL is followed by what was done and found for the first law in `broken`, and the numbers
        of the other broken laws. PASS is followed by the number of laws that hold, the laws that
        were not compared, with the reasons, and the duration.
        """
        if self.broken:
            root, *others = self.broken
            also = f"; also broken: {', '.join(others)}" if others else ""
            return f"FAIL {self[root]._description}{also}"
        skipped = [f"{v.law} not compared ({v.found})" for v in self.verdicts if v.passed is None]
        held = f"{len(self.verdicts) - len(skipped)} laws hold"
        return f"PASS: {', '.join([held, *skipped])} ({self.seconds:.0f} s)"

    @property
    def json(self) -> str:
        """The certificate as one line of JSON: all attributes, `passed` and `broken`.

        The verdicts are in "laws". A value that is nan or infinite is null.
        """
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
