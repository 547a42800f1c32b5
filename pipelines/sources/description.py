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
    """Options that select and prepare data; named as the engine's `DataOptions`."""

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
    """Interface of the object that a registered source function returns, which opens a data set."""

    def open(self, name: str, options: SourceOptions) -> Source:
        """Returns the source, called `name` in messages; ValueError if it cannot be opened."""


def fraction(text: str) -> float | None:
    """Returns the number that an option's text is, or 0 for ""; None if the text is no number."""
    try:
        return float(text.strip() or "0")
    except ValueError:
        return None


def check_fraction(flag: str, value: float) -> None:
    """Raises ValueError if a fraction to split off is not between 0 and 1, both exclusive."""
    if not 0 < value < 1:  # also rejects nan
        raise ValueError(f"{flag}: give a fraction between 0 and 1")


def cut(name: str, train: DataSplit, flag: str, value: float) -> tuple[DataSplit, DataSplit]:
    """Splits a fraction off the end of a split, as Keras's validation_split; returns both parts.

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
    """Returns the split that an option names, such as "train" or "train[:80%]".

    Raises:
      ValueError: when it is unknown or empty.
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
    """Returns the splits "train", "validation" and "test" that the options select; None: none.

    `given` are the splits of the data. If it has no "validation", a fraction is taken from the end
    of the training split.

    Raises:
      ValueError: when an option names an unknown split, or splits share examples.
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
    """Returns `splits`; ValueError if they share examples and the options do not allow that."""
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
    """Returns the source of examples of a spec that are stored decoded, in the splits `given`.

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
    """Returns the specs of inputs and targets; ValueError if one is not fixed or not of numbers."""
    for kind, part in zip(("inputs", "targets"), spec, strict=True):
        nests.checked_spec(f"the {kind} of {name}", part)
    return spec


def refuse_unusable(name: str, options: SourceOptions, examples: int = 1) -> None:
    """Raises ValueError for options that examples of one shape do not have, or for no examples."""
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
