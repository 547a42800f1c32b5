"""Checks of the eight laws of docs/concepts/laws.md, properties that every run must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.verify.certificate import Finding
from engine.verify.laws import (
    l1_global_loss,
    l2_one_verdict,
    l3_pure_randomness,
    l4_data_state,
    l5_one_state,
    l6_one_trace,
    l7_topology,
    l8_every_example_once,
)
from engine.verify.runs import VerificationRuns


class Law(NamedTuple):
    """A law and the function that checks it; `number` is the `law` of a `Verdict`."""

    number: str  # "L1" to "L8"
    name: str
    check: Callable[[VerificationRuns], Finding]
    compares: bool = False  # whether the check is meaningless if two identical runs differ (L3)


# In the order of the checks: laws that others depend on come first, and L6, which counts the traces
# of all runs, comes last.
LAWS = (
    Law("L4", "data state is two integers", l4_data_state.check),
    Law("L3", "pure randomness", l3_pure_randomness.check),
    Law("L5", "one state", l5_one_state.check, compares=True),
    Law("L2", "reduce, then judge, then act", l2_one_verdict.check),
    Law("L1", "global loss", l1_global_loss.check, compares=True),
    Law("L7", "topology is not state", l7_topology.check, compares=True),
    Law("L8", "every example is scored once", l8_every_example_once.check, compares=True),
    Law("L6", "one trace", l6_one_trace.check),
)
