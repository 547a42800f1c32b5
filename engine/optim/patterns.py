"""Patterns of variables' names, in options.

A pattern is a regular expression of the whole name of a variable, as `--mode=inspect` lists it, or
one of `WORDS`. This module does not import TensorFlow, so that invalid options are rejected at
once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Words that stand for variables by their rank: "matrices" of 2 or more, such as kernels and tables;
# "vectors" of 1 or 0, such as biases and the parameters of norms.
MATRICES = "matrices"
WORDS = (MATRICES, "vectors")
_LISTED = 5  # names of variables in a message


def multipliers(text: str) -> dict[str, float]:
    """Returns the multiplier of each pattern in a value of `--learning_rate_multipliers`, in order.

    Raises:
      ValueError: if a part is not PATTERN:NUMBER, a pattern is no regular expression or is given
        twice, or a number is negative.
    """
    flag = f"--learning_rate_multipliers={text}"
    form = "PATTERN:NUMBER with a number of 0 or more, such as 'head/.*:10,.*/offset:64'"
    return _numbers(flag, text, form)


def decay_factors(text: str) -> dict[str, float]:
    """Returns the factor of each pattern in a value of `--weight_decay_variables`, in order.

    A part is PATTERN or PATTERN:FACTOR; without a factor, it is 1.

    Raises:
      ValueError: if there is no pattern, a pattern is no regular expression or is given twice, or a
        factor is negative.
    """
    flag = f"--weight_decay_variables={text}"
    form = "PATTERN or PATTERN:FACTOR with a factor of 0 or more, such as '.*/offset:0.1,.*'"
    found = _numbers(flag, text, form, without=1.0)
    if not found:
        raise ValueError(
            f"{flag}: give matrices, vectors or patterns; --weight_decay=0 is for no decay"
        )
    return found


def freezing_updates(text: str) -> dict[str, int]:
    """Returns the number of updates of each pattern in a value of `--freeze_after`, in order.

    Raises:
      ValueError: if a part is not PATTERN:UPDATES, a pattern is no regular expression or is given
        twice, or a number is negative or not whole.
    """
    flag = f"--freeze_after={text}"
    form = "PATTERN:UPDATES with a whole number of 0 or more, such as 'layers/0/.*:500'"
    return {each: int(value) for each, value in _numbers(flag, text, form, whole=True).items()}


def _numbers(
    flag: str, text: str, form: str, *, without: float | None = None, whole: bool = False
) -> dict[str, float]:
    """Returns the number of each pattern in a comma-separated list of PATTERN:NUMBER, in order.

    Args:
      flag: option and its value, which begin error messages.
      text: the list.
      form: what a part must be, for error messages.
      without: number of a part without a colon and a number; None: such a part is refused.
      whole: whether numbers must be whole.

    Raises:
      ValueError: if a part does not have the form, or a pattern is given twice or is no regular
        expression.
    """
    found: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        pattern, colon, number = part.rpartition(":")
        try:
            value = float(number) if colon else None
        except ValueError:  # the colon is one of the pattern
            value = None
        if value is None and without is not None:
            pattern, value = part, without
        if not pattern or value is None or not 0 <= value < 1e15 or (whole and value % 1):
            raise ValueError(f"{flag}: {part!r} is not {form}")
        if pattern in found:
            raise ValueError(f"{flag}: names {pattern!r} twice")
        check_pattern(flag, pattern)
        found[pattern] = value
    return found


def check_pattern(flag: str, pattern: str) -> None:
    """Raises ValueError, which begins with `flag`, if a pattern is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{flag}: {pattern!r} is no regular expression: {error}") from error


def matches(pattern: str, name: str, variable: Any) -> bool:
    """Returns whether a pattern selects a variable of a name."""
    if pattern in WORDS:
        return (variable.shape.rank > 1) == (pattern == MATRICES)
    return re.fullmatch(pattern, name) is not None


def selected(flag: str, patterns: Sequence[str], variables: Mapping[str, Any]) -> dict[str, str]:
    """Returns the first pattern that selects each variable, by the name of the variable.

    Variables that no pattern selects are left out.

    Args:
      flag: option and its value, which begin error messages.
      patterns: patterns, in order.
      variables: trainable variables by name.

    Raises:
      ValueError: if a pattern selects no variable.
    """
    for pattern in patterns:
        if not any(matches(pattern, *each) for each in variables.items()):
            names = ", ".join(list(variables)[:_LISTED])
            more = ", ..." if len(variables) > _LISTED else ""
            raise ValueError(
                f"{flag}: {pattern!r} matches no trainable variable; they are {names}{more}, as "
                "--mode=inspect lists them"
            )
    found: dict[str, str] = {}
    for name, variable in variables.items():
        for pattern in patterns:
            if matches(pattern, name, variable):
                found[name] = pattern
                break
    return found
