"""Checks of names and numbers that `--augment` and `--evaluation_views` share."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def check_new(noun: str, name: str, known: Collection[str]) -> None:
    """Raises ValueError if a name cannot be registered.

    Args:
      noun: what the name is of, such as "a view".
      name: the name, which must be a Python identifier.
      known: names that are in use.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of {noun} must be a Python identifier, got {name!r}")
    if name in known:
        raise ValueError(f"{noun} named {name!r} is registered already; choose another name")


def choices(value: str, known: Collection[str]) -> str:
    """Formats the known names for an error message, and suggests one that is close to `value`."""
    close = difflib.get_close_matches(value, known, n=1)
    return ", ".join(known) + (f"; did you mean {close[0]!r}?" if close else "")


def number_of(flag: str, name: str, text: str | None, default: float) -> float:
    """Returns the number that is given after a name, or its default.

    Args:
      flag: the option with its value, for the error message.
      name: the name.
      text: what is given after the colon; None: nothing.
      default: the number then.

    Raises:
      ValueError: when the text is not a number.
    """
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ValueError(f"{flag}: {text!r} is not a number; give {name}:{default:g}") from None
