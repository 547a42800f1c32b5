"""What the check of a law found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.verify.differences import Difference


class Finding(NamedTuple):
    """What was done, and what came of it.

    passed: None where the law cannot be told, for the reason in `found`.
    done: in words.
    found: in words.
    measured: a count of what is not as it must be, or a relative difference.
    bound: what `measured` may be at most.
    """

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


def not_compared(reason: str) -> Finding:
    """Where a law cannot be told."""
    return Finding(None, "", reason)


def apart(done: str, difference: Difference, words: str = "") -> Finding:
    """Of the greatest difference there is."""
    within = difference.within
    return Finding(within, done, words or str(difference), difference.measured, difference.bound)


def same_bits(done: str, differing: Sequence[str], of: int, more: Sequence[str] = ()) -> Finding:
    """Of what must be the same to the bit.

    Args:
      done: in words.
      differing: names of what is not.
      of: how many were compared.
      more: what else is wrong, in words.
    """
    words = f"the same bits in all {of} tensors"
    if differing:
        words = f"{len(differing)} of {of} tensors differ: {few(differing)}"
    count = len(differing) + len(more)
    return Finding(not count, done, "; ".join([words, *more]), count, 0)


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
