"""The result of a verification: a verdict on each law, and their summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.core.metrics import jsonable

# Root causes first: a broken law may be the only reason why those after it are broken. For example,
# runs on different data differ (L4), nondeterministic runs cannot be compared (L3), and a trace or
# an untracked variable also affects micro-batches and replicas (L6, L5).
ROOT_CAUSE_ORDER = ("L4", "L3", "L6", "L5", "L2", "L1", "L7", "L8")


@dataclass(frozen=True)
class Verdict:
    """The result of checking one law.

    Attributes:
      law: number of the law, "L1" to "L8".
      name: name of the law.
      passed: whether the law holds; None if it cannot be checked, for the reason in `found`.
      done: description of what the check did.
      found: description of what the check found.
      measured: number of problems, or a relative difference.
      bound: largest `measured` that passes.
      seconds: duration of the check.
    """

    law: str
    name: str
    passed: bool | None
    done: str
    found: str
    measured: float | None
    bound: float | None
    seconds: float

    @property
    def line(self) -> str:
        """The verdict as one line of text."""
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
        """Whether no law is broken."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """Numbers of the broken laws, root cause first."""
        return [law for law in ROOT_CAUSE_ORDER if self[law].passed is False]

    def __getitem__(self, law: str) -> Verdict:
        """Returns the verdict on a law by its number, such as "L7"."""
        return {verdict.law: verdict for verdict in self.verdicts}[law]

    @property
    def summary(self) -> str:
        """The result in one line that starts with PASS or FAIL."""
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
