"""Data sets of text: windows of tokens, for language models.

An example has the tokens of a window as inputs, and as targets the token that follows each of them.
In training, each token but the last ones starts a window, and an epoch is a permutation of them.
Windows of held-out splits follow each other and do not overlap: each token is predicted once, but
for those of an incomplete window at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.errors import one_line_message
from pipelines.nests import Nest, Spec
from pipelines.preprocessing import preprocessing
from pipelines.rows import Rows
from pipelines.source import Source
from pipelines.sources import description, held_out
from pipelines.sources.description import SourceOptions
from pipelines.sources.held_out import Fraction
from pipelines.splits import IndexedSplit
from pipelines.vocabulary import BYTES, KINDS, code_points, vocabulary_of

CONTEXT = 64  # tokens of a window, unless an option or the source says otherwise
_FILES = {"train.txt": "train", "validation.txt": "validation", "val.txt": "validation"}
_FILES["test.txt"] = "test"
_PART = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")

Content = str | os.PathLike | bytes  # the path of a file, or the text itself in UTF-8


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """Description of a data set of text.

    Attributes:
      contents: functions that return the text of a split in UTF-8, by its name.
      context: tokens of a window.
      tokens: "characters" or "bytes".
      unknown: whether there is a token for characters that the training text does not have.
      version: version of the data.
    """

    contents: Mapping[str, Callable[[], bytes]]
    context: int = CONTEXT
    tokens: str = KINDS[0]
    unknown: bool = False
    version: str = "text"

    def open(self, name: str, options: SourceOptions) -> Source:
        """Reads the texts that the options select; returns the source, called `name` in messages.

        Raises:
          ValueError: when a text cannot be read, a split cannot be used, splits share tokens
            without `allow_overlap`, a held-out text has a character that has no id, or an option
            does not apply.
        """
        description.refuse_unusable(name, options)
        context = options.context or self.context
        kind = self.tokens if options.tokens == "auto" else options.tokens
        if context < 1:
            raise ValueError(f"{name}: context={context} has to be 1 or more")
        if kind not in KINDS:
            raise ValueError(f"{name}: tokens={kind!r} has to be one of {', '.join(KINDS)}")
        texts = _Texts(name, self.contents, kind)
        flags, parts = _chosen(texts, options)
        # Of an evaluation of any split, the others are not used.
        compared = {k: v for k, v in parts.items() if (k, options.test_flag) != ("test", "split")}
        _refuse_overlap(compared, flags, options.allow_overlap)
        points = texts.points(parts["train"])
        vocabulary = BYTES if kind == "bytes" else vocabulary_of(points, self.unknown)

        def windows(split: str) -> IndexedSplit:
            where = f"{flags[split]}: {split} of {name}"
            found = points if split == "train" else texts.points(parts[split])
            if kind == "characters":
                found = vocabulary.encode_points(found, where)
            stride = 1 if split == "train" else context
            if len(found) <= context:
                raise ValueError(
                    f"{where} has {len(found):,} {kind}, and a window takes {context} and the next "
                    "one; give a longer text or a smaller --context"
                )
            table = WindowTable(found, context, stride)
            return IndexedSplit(split, table, Rows(table.windows))

        sets = [key for key in parts if key not in ("train", "test")]
        spec = tf.TensorSpec([context], vocabulary.dtype)
        return Source(
            name=name,
            version=self.version,
            train=windows("train"),
            validation_sets={key: windows(key) for key in sets},
            test=windows("test") if "test" in parts else None,
            decoded=(spec, spec),
            class_names=vocabulary.tokens,
            tokens=kind,
            preprocess=preprocessing(options.scale, spec),
            features=f"windows of {context} {kind}, {len(vocabulary.tokens)} different ones",
        )


def text(
    path: str | os.PathLike = "",
    *,
    train: Content = b"",
    validation: Content | Mapping[str, Content] = b"",
    test: Content = b"",
    context: int = CONTEXT,
    tokens: str = KINDS[0],
    unknown: bool = False,
) -> Text:
    """Describes a data set of text; for functions that `tl.source` registers.

    A text is the path of a file in UTF-8, or the text itself as UTF-8 bytes. Without a separate
    validation text, `--validation_split` cuts its fraction off the end of the training text.

    Args:
      path: file of the training text; or a folder with the files train.txt and, if there are such
        splits, validation.txt (or val.txt) and test.txt. Instead of the other texts.
      train: text to train on.
      validation: text of the validation set; a dict of texts: several sets by name.
      test: text of the test split.
      context: tokens of a window, which `--context` overrides.
      tokens: what a token is, which `--tokens` overrides: "characters", whose ids are those of the
        characters in the training text, ordered by code point, or "bytes", with 256 ids.
      unknown: whether there is a further id, for characters that the training text does not have;
        else they are an error.

    Raises:
      ValueError: when there is no such file, or no training text.
    """
    contents: dict[str, Content] = {}
    if path:
        contents = dict(_files(Path(path)))
    else:
        sets = validation if isinstance(validation, Mapping) else {"validation": validation}
        contents = {"train": train, **held_out.sets_of("the text", sets), "test": test}
    read = {key: functools.partial(_read, each) for key, each in contents.items() if each}
    if "train" not in read:
        raise ValueError("tl.text: give a path or train=, a text to train on")
    return Text(read, context, tokens, unknown)


def _files(path: Path) -> dict[str, Path]:
    """Returns the file of each split by the name of the split.

    Raises:
      ValueError: when there is no file, or two for validation.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise ValueError(f"--dataset=text:{path}: there is no such file or folder")
    found: dict[str, Path] = {}
    for file, split in _FILES.items():
        if (path / file).is_file():
            if split in found:
                raise ValueError(f"{path} has both {found[split].name} and {file}: remove one")
            found[split] = path / file
    if "train" not in found:
        raise ValueError(f"--dataset=text:{path}: the folder has no file train.txt")
    return found


def _read(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return Path(content).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {content}: {one_line_message(error, 120)}") from error


class _Range(NamedTuple):
    """Consecutive tokens of a split."""

    split: str
    start: int
    stop: int  # exclusive


class _Texts:
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

    def ranges(self, flag: str, text: str) -> list[_Range]:
        """Returns the tokens that an option selects, such as "train[:90%]" or "validation+test".

        Raises:
          ValueError: when a split is unknown, or nothing is selected.
        """
        found = []
        for part in text.split("+"):
            match = _PART.fullmatch(part.strip())
            if match is None or match[1] not in self.contents:
                known = ", ".join(self.contents)
                raise ValueError(
                    f"--{flag}={text}: {self.name} has {known}; give one, several joined by +, or "
                    "a part: train[:80%]"
                )
            bounds = description.bounds(match[2], match[3], len(self.whole(match[1])))
            found.append(_Range(match[1], *bounds))
        if all(each.start >= each.stop for each in found):
            raise ValueError(f"--{flag}={text}: holds nothing of {self.name}; give another")
        return found

    def points(self, ranges: list[_Range]) -> np.ndarray:
        """Returns the code points or bytes of ranges, one after the other, uint8 or uint32 [n]."""
        return np.concatenate([self.whole(each.split)[each.start : each.stop] for each in ranges])


def _chosen(
    texts: _Texts, options: SourceOptions
) -> tuple[dict[str, str], dict[str, list[_Range]]]:
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


def _cut(ranges: list[_Range], fraction: float) -> tuple[list[_Range], list[_Range]]:
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


def _refuse_overlap(
    parts: Mapping[str, list[_Range]], flags: Mapping[str, str], allowed: bool
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


class WindowTable:
    """Table of the windows of a text, stored decoded: (inputs, targets), both [context].

    Args:
      ids: ids of the tokens, [n].
      context: tokens of a window.
      stride: tokens from the start of a window to that of the next.

    Attributes:
      windows: number of windows.
      spec: specs of an example.
    """

    def __init__(self, ids: np.ndarray, context: int, stride: int) -> None:
        self._ids, self._context, self._stride = ids, context, stride
        self.windows = (len(ids) - context - 1) // stride + 1
        spec = tf.TensorSpec([context], ids.dtype)
        self.spec: tuple[Spec, Spec] = (spec, spec)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (inputs, targets) by row, each [k, context]."""
        starts = np.asarray(rows, np.int64)[:, None] * self._stride
        pieces = self._ids[starts + np.arange(self._context + 1)]
        return pieces[:, :-1], pieces[:, 1:]

    def targets(self, rows: np.ndarray | Rows) -> Nest:
        """Returns the targets by row, [k, context]."""
        return self.read(np.asarray(rows))[1]

    def location(self, row: int) -> str:
        """Returns "window" and the row, for messages."""
        return f"window {row}"

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a digest of the text, of the windows and of `rows`; ignores `all_bytes`."""
        content = f"{self._ids.dtype} {self._context} {self._stride} {len(rows)}\n"
        digest = hashlib.sha256(content.encode())
        digest.update(np.ascontiguousarray(self._ids).tobytes())
        if not isinstance(rows, Rows):
            digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
        elif len(rows) < self.windows:
            digest.update(f"{rows}\n".encode())
        return digest.hexdigest()[:32]


def is_text(features: Mapping[str, Any]) -> bool:
    """Returns whether the only feature of a TFDS data set is a text."""
    return [type(each).__name__ for each in features.values()] == ["Text"]
