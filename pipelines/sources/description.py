"""Options of data sources, the interface of source descriptions, and the choice of splits."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from pipelines import nests
from pipelines.nests import Spec
from pipelines.preprocessing import preprocessing
from pipelines.source import Source
from pipelines.sources.overlap import refuse_overlap
from pipelines.splits import DataSplit


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options that select and prepare data; most are named as in the engine's `DataOptions`."""

    cache_dir: str
    data_dir: str | None = None
    train_split: str = "train"
    validation_split: str = "0.1"
    test_split: str = "auto"
    test_flag: str = "test_split"  # name of the option that gave the test split, for messages
    input_features: str = ""
    target_features: str = ""
    image_size: tuple[int, int] | None = None
    fit: str = "pad"
    antialias: bool = True
    scale: str = "auto"
    allow_overlap: bool = False
    skip_damaged: bool = False
    prepared_only: bool = False  # a data set that would have to be prepared is an error
    registered: tuple[str, ...] = ()  # names of the user's own sources, for messages


class Description(Protocol):
    """Interface of a description of a data set, as a registered source function returns it."""

    def open(self, name: str, options: SourceOptions) -> Source:
        """Opens the data set and returns it as a source, called `name` in messages.

        Raises:
          ValueError: when the data set cannot be opened.
        """


def fraction(text: str) -> float | None:
    """Converts the text of an option to a number, "" to 0; returns None if it is not a number."""
    try:
        return float(text.strip() or "0")
    except ValueError:
        return None


def check_fraction(flag: str, value: float) -> None:
    """Raises ValueError if a fraction to split off is not between 0 and 1, both exclusive.

    `flag` begins the message.
    """
    if not 0 < value < 1:  # also rejects nan
        raise ValueError(f"{flag}: give a fraction between 0 and 1")


def cut(name: str, train: DataSplit, flag: str, value: float) -> tuple[DataSplit, DataSplit]:
    """Splits the fraction `value` off the end of a split, as Keras's validation_split.

    Returns both parts: the first examples, and the fraction. `name` is that of the data set.

    Raises:
      ValueError: when one of the parts would be empty; `flag` begins the message.
    """
    count = len(train)
    # Computed and rounded as Keras's validation_split, so that both select the same examples.
    split_at = math.floor(count * (1.0 - value))
    if split_at in (0, count):
        empty = "train" if split_at == 0 else "validation"
        raise ValueError(
            f"{flag}: of the {count} examples in {train.name} of {name} leaves "
            f"none for {empty}; give another --validation_split, or --validation_split=0 for none"
        )
    return (
        train.part(0, split_at, f"{train.name}[:{split_at}]"),
        train.part(split_at, count, f"{train.name}[{split_at}:]"),
    )


_SLICE = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def named(name: str, splits: Mapping[str, DataSplit], flag: str, text: str) -> DataSplit:
    """Returns the split, or the part of a split, that an option names.

    Args:
      name: name of the data set, for messages.
      splits: splits of the data set by name.
      flag: name of the option, for messages.
      text: name of a split, such as "train", or a part, such as "train[:80%]" or "train[-100:]".

    Raises:
      ValueError: when the split is unknown or the part is empty.
    """
    match = _SLICE.fullmatch(text.strip())
    if match is None or match[1] not in splits:
        raise ValueError(f"--{flag}={text}: {name} has {', '.join(splits)}, or a part: train[:80%]")
    split = splits[match[1]]
    count = len(split)

    def position(bound: str | None, default: int) -> int:
        if bound is None:
            return default
        percent = bound.endswith("%")
        at = round(int(bound[:-1]) * count / 100) if percent else int(bound)
        return min(max(at + count if bound.startswith("-") else at, 0), count)

    start, stop = position(match[2], 0), position(match[3], count)
    if start >= stop:
        raise ValueError(f"--{flag}={text}: holds no examples of {name}; give another")
    return split.part(start, stop, text.strip()) if "[" in text else split


def choose_splits(
    name: str, given: Mapping[str, DataSplit], options: SourceOptions
) -> dict[str, DataSplit | None]:
    """Returns the splits "train", "validation" and "test" that the options select; None: no split.

    `--train_split` and `--test_split` name splits or parts of splits; "" is no test split, and
    "auto" is `given["test"]`, if there is one. `--validation_split` names a split too, or is a
    fraction that is taken from the end of the training split ("" or 0: no validation split). Its
    default value selects `given["validation"]` instead, if there is one.

    Args:
      name: name of the data set, for messages.
      given: the splits of the data set by name.
      options: the options of the data set.

    Raises:
      ValueError: when an option names an unknown or empty split, when a fraction is out of range or
        leaves a split empty, or when splits share examples and the options do not allow that.
    """
    train = named(name, given, "train_split", options.train_split)
    text = options.validation_split
    flag, value = f"--validation_split={text}", fraction(text)
    validation: DataSplit | None = None
    if value is None:
        validation = named(name, given, "validation_split", text)
    elif "validation" in given and text == SourceOptions.validation_split:
        validation = given["validation"]
    elif value != 0:
        check_fraction(flag, value)
        train, validation = cut(name, train, flag, value)
    test: DataSplit | None = given.get("test")
    if options.test_split != "auto":
        flagged = options.test_flag, options.test_split
        test = named(name, given, *flagged) if options.test_split else None
    return checked({"train": train, "validation": validation, "test": test}, options)


def checked(
    splits: dict[str, DataSplit | None], options: SourceOptions
) -> dict[str, DataSplit | None]:
    """Returns `splits`, after a check that no example is in two of them, or twice in one.

    With the option `allow_overlap`, nothing is checked. Only the training and the validation split
    are checked if the test split was given by `--split`, as for the evaluation of any split.

    Raises:
      ValueError: when an example is in two splits, or twice in one.
    """
    flags = {
        "train": f"--train_split={options.train_split}",
        "validation": f"--validation_split={options.validation_split}",
        "test": f"--{options.test_flag}={options.test_split}",
    }
    compared = {key: split for key, split in splits.items() if split is not None}
    if options.test_flag == "split":  # evaluation of any split, of the training one too
        compared.pop("test", None)
    refuse_overlap(compared, options.allow_overlap, flags)
    return splits


def class_names_of(given: int | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Returns class names as a tuple; for a number of classes, the names are "0", "1" and so on."""
    return tuple(map(str, range(given) if isinstance(given, int) else given))


def decoded_source(
    name: str,
    version: str,
    spec: tuple[Spec, Spec],
    given: Mapping[str, DataSplit],
    class_names: tuple[str, ...],
    options: SourceOptions,
    notes: tuple[str, ...] = (),
) -> Source:
    """Returns the source of a data set whose examples are stored decoded.

    Args:
      name: name of the source.
      version: version of the source.
      spec: specs of the inputs and targets of an example.
      given: the splits of the data set by name, of which `options` select some.
      class_names: names of the classes; empty if the targets are not class labels.
      options: options that select the splits and the scaling.
      notes: lines to print at the start of a run.

    Raises:
      ValueError: as `choose_splits`.
    """
    chosen: dict[str, Any] = choose_splits(name, given, options)
    return Source(
        name=name,
        version=version,
        decoded=spec,
        class_names=class_names,
        preprocess=preprocessing(options.scale, spec[0]),
        notes=notes,
        **chosen,
    )


def checked_specs(name: str, spec: tuple[Spec, Spec]) -> tuple[Spec, Spec]:
    """Returns `spec`, the specs of inputs and targets, unchanged.

    Raises:
      ValueError: when a tensor has no fixed shape, or is neither numeric nor bool.
    """
    for kind, part in zip(("inputs", "targets"), spec, strict=True):
        nests.checked_spec(f"the {kind} of {name}", part)
    return spec


def refuse_unusable(name: str, options: SourceOptions, examples: int = 1) -> None:
    """Raises ValueError if options select features or an image size, or if there are no examples.

    It is for data sets whose examples have one shape, which a user's code determines.
    """
    refuse_features(name, options)
    if options.image_size:
        raise ValueError(
            f"--image_size: {name} has examples of one shape; resize them in the source"
        )
    if examples < 1:
        raise ValueError(f"{name}: examples={examples} has to be 1 or more")


def refuse_features(name: str, options: SourceOptions) -> None:
    """Raises ValueError if options select features, which only TFDS data sets have."""
    for flag in ("input_features", "target_features"):
        if value := getattr(options, flag):
            raise ValueError(
                f"--{flag}={value}: is for TFDS data sets, and {name} says itself what its inputs "
                "and targets are"
            )
