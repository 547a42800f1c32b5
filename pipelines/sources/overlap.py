"""Refuses splits that share examples, such as a test split with training examples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from pipelines.splits import DataSplit


def refuse_overlap(
    splits: Mapping[str, DataSplit], allowed: bool, flags: Mapping[str, str]
) -> None:
    """Checks that no stored example is in two splits, or twice in one, unless that is `allowed`.

    Different stored examples of equal content do not count.

    Args:
      splits: splits of a source by name, such as "train".
      allowed: whether such examples are allowed; then nothing is checked.
      flags: option that gave each split, for messages, such as {"test":
        "--test_split=train[70%:]"}.

    Raises:
      ValueError: when examples are in two splits, or twice in one.
    """
    if allowed:
        return
    for name, split in splits.items():
        if count := split.repeated():
            raise ValueError(
                f"{flags[name]}: has {count:,} of its examples twice; name each part once, or "
                "allow it with --allow_overlap=true"
            )
    for (one, first), (other, second) in itertools.combinations(splits.items(), 2):
        if count := second.in_common(first):
            option = flags[other].rpartition("=")[0]  # of a named set: --validation_split=NAME
            none = f"leave {other} out" if "=" in option else f"give {option}= for none"
            raise ValueError(
                f"{flags[other]}: shares examples with {flags[one]}: {count:,} of its "
                f"{len(second):,} are in both; leave them out, as with "
                f"--train_split='train[:90%]' and {option}='train[90%:]', or {none}, or allow it "
                "with --allow_overlap=true"
            )
