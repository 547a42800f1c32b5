"""The finding of a law's check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.verify.differences import Difference


class Finding(NamedTuple):
    """What a check did and what it found.

    Attributes:
      passed: None where the law cannot be checked, for the reason in `found`.
      done: what the check did, in words.
      found: what the check found, in words.
      measured: count of problems, or a relative difference.
      bound: largest `measured` that passes.
    """

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


def not_compared(reason: str) -> Finding:
    """Returns the finding of a law that cannot be checked."""
    return Finding(None, "", reason)


def apart(done: str, difference: Difference, words: str = "") -> Finding:
    """Returns a finding on the largest difference."""
    within = difference.within
    return Finding(within, done, words or str(difference), difference.measured, difference.bound)


def same_bits(done: str, differing: Sequence[str], of: int, more: Sequence[str] = ()) -> Finding:
    """Returns a finding on tensors that must be the same to the bit.

    Args:
      done: what the check did, in words.
      differing: names of the tensors that differ.
      of: number of tensors that were compared.
      more: other problems, in words.
    """
    words = f"the same bits in all {of} tensors"
    if differing:
        words = f"{len(differing)} of {of} tensors differ: {few(differing)}"
    count = len(differing) + len(more)
    return Finding(not count, done, "; ".join([words, *more]), count, 0)


def few(names: Sequence[str]) -> str:
    """Returns the first three names, separated by commas."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
