"""Which tokens of its texts the splits of a data set have.

A split is a list of ranges of consecutive tokens, which `--train_split`, `--validation_split` and
`--test_split` select.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pipelines.sources import description, held_out
from pipelines.sources.description import SourceOptions
from pipelines.sources.held_out import Fraction
from pipelines.vocabulary import code_points


class TokenRange(NamedTuple):
    """Consecutive tokens of a split."""

    split: str
    start: int
    stop: int  # exclusive


class Texts:
    """The texts of a data set, each read once, when it is first needed."""

    def __init__(self, name: str, contents: Mapping[str, Callable[[], bytes]], kind: str) -> None:
        self.name, self.contents, self._kind = name, contents, kind
        self._read: dict[str, np.ndarray] = {}

    def whole(self, split: str) -> np.ndarray:
        """Returns the code points or bytes of a split, uint8 or uint32 [n].

        Raises:
          ValueError: when the text cannot be read, or is not in UTF-8.
        """
        if split not in self._read:
            content = self.contents[split]()
            if self._kind == "bytes" or content.isascii():
                self._read[split] = np.frombuffer(content, np.uint8)
            else:
                try:
                    self._read[split] = code_points(content.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{split} of {self.name} is not in UTF-8: byte {error.start:,} is "
                        f"{content[error.start]:#x}; convert it, or give --tokens=bytes"
                    ) from error
        return self._read[split]

    def ranges(self, flag: str, text: str) -> list[TokenRange]:
        """Returns the tokens that an option selects, such as "train[:90%]" or "validation+test".

        Raises:
          ValueError: when a split is unknown, or nothing is selected.
        """
        found = []
        for part in text.split("+"):
            match = description.SLICE.fullmatch(part.strip())
            if match is None or match[1] not in self.contents:
                known = ", ".join(self.contents)
                raise ValueError(
                    f"--{flag}={text}: {self.name} has {known}; give one, several joined by +, or "
                    "a part: train[:80%]"
                )
            bounds = description.bounds(match[2], match[3], len(self.whole(match[1])))
            found.append(TokenRange(match[1], *bounds))
        if all(each.start >= each.stop for each in found):
            raise ValueError(f"--{flag}={text}: holds nothing of {self.name}; give another")
        return found

    def points(self, ranges: list[TokenRange]) -> np.ndarray:
        """Returns the code points or bytes of ranges, one after the other, uint8 or uint32 [n]."""
        return np.concatenate([self.whole(each.split)[each.start : each.stop] for each in ranges])


def chosen(
    texts: Texts, options: SourceOptions
) -> tuple[dict[str, str], dict[str, list[TokenRange]]]:
    """Returns the option that gives each split, for messages, and its tokens, by the split's name.

    Raises:
      ValueError: when an option names an unknown or empty split, or a fraction is invalid.
    """
    flags = {"train": f"--train_split={options.train_split}"}
    parts = {"train": texts.ranges("train_split", options.train_split)}
    own = [key for key in texts.contents if key not in ("train", "test")]
    separate = {key: key for key in own} if options.is_default else {}
    given = separate or options.validation_texts
    for key, text in given.items():
        flags[key] = f"--validation_split={key}" if separate else options.validation_flag(key)
        value = held_out.fraction(text)
        if value is None:
            parts[key] = texts.ranges(options.validation_option(key), text)
        elif value:
            held_out.check_fraction(Fraction(flags[key], value))
            parts["train"], parts[key] = _cut(parts["train"], value)
    test = options.test_split
    if test == "auto":
        test = "test" if "test" in texts.contents else ""
    if test:
        flags["test"] = f"--{options.test_flag}={test}"
        parts["test"] = texts.ranges(options.test_flag, test)
    return flags, parts


def _cut(ranges: list[TokenRange], fraction: float) -> tuple[list[TokenRange], list[TokenRange]]:
    """Cuts a fraction of the tokens off the end; returns what is left, and what was cut off."""
    count = sum(each.stop - each.start for each in ranges)
    left = math.floor(count * (1.0 - fraction))
    before, after = [], []
    for each in ranges:
        middle = min(each.start + left, each.stop)
        before.append(each._replace(stop=middle))
        after.append(each._replace(start=middle))
        left -= middle - each.start
    return before, after


def refuse_overlap(
    parts: Mapping[str, list[TokenRange]], flags: Mapping[str, str], allowed: bool
) -> None:
    """Raises ValueError when two splits share tokens, or one has some twice, unless `allowed`."""
    every = [(key, each) for key, ranges in parts.items() for each in ranges]
    for (one, first), (other, second) in itertools.combinations(every, 2):
        shared = min(first.stop, second.stop) - max(first.start, second.start)
        if first.split == second.split and shared > 0 and not allowed:
            raise ValueError(
                f"{flags[other]}: shares {shared:,} tokens with {flags[one]}; leave them out, as "
                "with --train_split='train[:90%]' and --validation_split='train[90%:]', or allow "
                "it with --allow_overlap=true"
            )
