"""What came of verifying: a verdict for each law, and all of them together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.metrics import jsonable

# From the root: where a law is broken, so may be those behind it, for that reason alone. Other
# data are another run; nothing that differs by chance can be compared; what a trace or a hidden
# variable adds, micro-batches and replicas show too; and so on.
ROOTS = ("L4", "L3", "L6", "L5", "L2", "L1", "L7", "L8")


@dataclass(frozen=True)
class Verdict:
    """What came of one law.

    law: "L1" to "L8".
    name: in words.
    passed: None where it cannot be told, for the reason in `found`.
    done: what was done, in words.
    found: what came of it, in words.
    measured: as a number; a count of what is not the same, or a relative difference.
    bound: what `measured` may be at most.
    seconds: that it took.
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
        """For a person."""
        said = {True: "ok", False: "BROKEN", None: "not compared"}[self.passed]
        done = f"{self.done}: " if self.done else ""
        return f"{self.law} {self.name}: {done}{self.found} ... {said} {self.seconds:.1f} s"


@dataclass(frozen=True)
class Certificate:
    """The laws on one configuration and one machine.

    verdicts: one for each law, L1 to L8.
    config: all options by name.
    data: what was trained on and what was evaluated, in numbers.
    device: on which device it trains, on which several it was compared, and what is not as the
      options ask.
    versions: of what computed it.
    seconds: that all of it took.
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
        """The laws that are broken, the root of it first."""
        found = {verdict.law for verdict in self.verdicts if verdict.passed is False}
        return [law for law in ROOTS if law in found]

    def __getitem__(self, law: str) -> Verdict:
        """The verdict on a law by its number, "L7"."""
        return {verdict.law: verdict for verdict in self.verdicts}[law]

    @property
    def summary(self) -> str:
        """PASS or FAIL in one line."""
        open_ = [f"{v.law} not compared ({v.found})" for v in self.verdicts if v.passed is None]
        if self.broken:
            root, *others = self.broken
            also = f"; also broken: {', '.join(others)}" if others else ""
            verdict = self[root]
            done = f"{verdict.done}: " if verdict.done else ""
            return f"FAIL {root} {verdict.name}: {done}{verdict.found}{also}"
        held = f"{len(self.verdicts) - len(open_)} laws hold"
        return f"PASS: {', '.join([held, *open_])} ({self.seconds:.0f} s)"

    @property
    def json(self) -> str:
        """All of it in one line."""
        laws = [
            {
                "law": v.law,
                "name": v.name,
                "passed": v.passed,
                "done": v.done,
                "found": v.found,
                "measured": v.measured,
                "bound": v.bound,
                "seconds": round(v.seconds, 2),
            }
            for v in self.verdicts
        ]
        whole = {
            "passed": self.passed,
            "broken": self.broken,
            "laws": [jsonable(law) for law in laws],
            "config": jsonable(self.config),
            "data": self.data,
            "device": self.device,
            "versions": self.versions,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(whole)
