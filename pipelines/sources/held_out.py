"""Validation sets of a source: their names, and fractions cut off the end of the training split."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.splits import DataSplit

SET_NAME = re.compile(r"(?!(train|test)$)[A-Za-z_][A-Za-z_0-9]*")


class Fraction(NamedTuple):
    """A fraction of the training split, and the text that gave it, which begins error messages."""

    flag: str  # such as "--validation_split=0.1"
    value: float


def fraction(text: str) -> float | None:
    """Converts the text of an option to a number, "" to 0; returns None if it is not a number."""
    try:
        return float(text.strip() or "0")
    except ValueError:
        return None


def check_fraction(part: Fraction) -> None:
    """Raises ValueError if a fraction to split off is not between 0 and 1, both exclusive."""
    if not 0 < part.value < 1:  # also rejects nan
        raise ValueError(
            f"{part.flag}: give a fraction between 0 and 1, or a split such as 'train[90%:]'"
        )


def cut(
    name: str, train: DataSplit, fractions: Mapping[str, Fraction]
) -> tuple[DataSplit, dict[str, DataSplit]]:
    """Cuts fractions off the end of a split, the first one at the very end, the next before it.

    Each is a fraction of the whole split, and has as many examples as Keras's validation_split, so
    that a single one has the same examples.

    Args:
      name: name of the data set, for messages.
      train: split that the fractions are cut off.
      fractions: fractions by the name of the split that each becomes.

    Returns:
      What is left of the split, and the splits by name.

    Raises:
      ValueError: when a fraction is not between 0 and 1, or one of the splits would be empty.
    """
    count = end = len(train)
    found: dict[str, DataSplit] = {}
    for key, part in fractions.items():
        check_fraction(part)
        # Computed and rounded as Keras's validation_split.
        start = end - (count - math.floor(count * (1.0 - part.value)))
        if start == end or start <= 0:
            raise ValueError(
                f"{part.flag}: of the {end} examples in {train.name} of {name} leaves none for "
                f"{key if start == end else 'train'}; give another --validation_split, or "
                "--validation_split=0 for none"
            )
        stop = end if end < count else ""
        found[key] = train.part(start, end, f"{train.name}[{start}:{stop}]")
        end = start
    return (train.part(0, end, f"{train.name}[:{end}]") if found else train), found


def sets_of(name: str, validation: Any) -> dict[str, Any]:
    """Returns the validation sets that the argument `validation` of a source gives, by name.

    A dict has the sets by name; another value is that of one set, "validation"; None is no set.
    `name` is that of the data set, for messages.

    Raises:
      ValueError: when a key of the dict is not the name of a validation set.
    """
    if validation is None:
        return {}
    if not isinstance(validation, Mapping):
        return {"validation": validation}
    for key in validation:
        if not isinstance(key, str) or not SET_NAME.fullmatch(key):
            raise ValueError(
                f"validation of {name} has the key {key!r}: name a validation set by letters, "
                "digits and _, other than train and test"
            )
    return dict(validation)
