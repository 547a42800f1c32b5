"""What a law's check did and found; `verification` turns it into a `Verdict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.verify.differences import Difference


class Finding(NamedTuple):
    """What a check did and what it found: the attributes of a `Verdict` with these names."""

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


def not_compared(reason: str) -> Finding:
    """Returns the finding for a law that cannot be checked, with the reason."""
    return Finding(None, "", reason)


def apart(done: str, difference: Difference, found: str = "") -> Finding:
    """Returns a finding that passes if the largest difference is within its bound."""
    found = found or str(difference)
    return Finding(difference.within, done, found, difference.measured, difference.bound)


def same_bits(done: str, differing: Sequence[str], of: int, more: Sequence[str] = ()) -> Finding:
    """Returns a finding that passes if all tensors are bitwise identical, without other problems.

    Args:
      done: description of what the check did.
      differing: names of the tensors that differ.
      of: number of tensors that were compared.
      more: descriptions of other problems.
    """
    found = f"the same bits in all {of} tensors"
    if differing:
        found = f"{len(differing)} of {of} tensors differ: {few(differing)}"
    count = len(differing) + len(more)
    return Finding(not count, done, "; ".join([found, *more]), count, 0)


def few(names: Sequence[str]) -> str:
    """Returns the first three names, separated by commas."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
