"""Data sets of text: windows of tokens, for language models.

An example has the tokens of a window as inputs, and as targets the token that follows each of them.
In training, each token but the last ones starts a window, and an epoch is a permutation of them.
Windows of held-out splits follow each other and do not overlap: each token is predicted once, but
for those of an incomplete window at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from pipelines.errors import one_line_message
from pipelines.preprocessing import preprocessing
from pipelines.rows import Rows
from pipelines.source import Source
from pipelines.sources import description, held_out, text_splits
from pipelines.sources.description import SourceOptions
from pipelines.sources.text_splits import Texts
from pipelines.splits import IndexedSplit
from pipelines.vocabulary import BYTES, KINDS, vocabulary_of
from pipelines.windows import WindowTable

CONTEXT = 64  # tokens of a window, unless an option or the source says otherwise
_FILES = {"train.txt": "train", "validation.txt": "validation", "val.txt": "validation"}
_FILES["test.txt"] = "test"

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
        texts = Texts(name, self.contents, kind)
        flags, parts = text_splits.chosen(texts, options)
        # Of an evaluation of any split, the others are not used.
        compared = {k: v for k, v in parts.items() if (k, options.test_flag) != ("test", "split")}
        text_splits.refuse_overlap(compared, flags, options.allow_overlap)
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
