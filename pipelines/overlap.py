"""Refuses splits that share examples, such as a test on what was trained on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from pipelines.splits import DataSplit


def refuse_overlap(
    splits: Mapping[str, DataSplit], allowed: bool, flags: Mapping[str, str]
) -> None:
    """Compares every pair of splits, and each split with itself.

    `splits` are those of a source by name, "train" and so on; `flags` says what the options gave
    for each, such as {"test": "--test_split=train[70%:]"}, for messages. Only the same stored
    examples count, not other ones of equal content.

    Raises:
      ValueError: when examples are in two splits, or twice in one, unless that is `allowed`.
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
            raise ValueError(
                f"{flags[other]}: shares examples with {flags[one]}: {count:,} of its "
                f"{len(second):,} are in both; leave them out, as with "
                f"--train_split='train[:90%]' and --{other}_split='train[90%:]', or give "
                f"--{other}_split= for none, or allow it with --allow_overlap=true"
            )
