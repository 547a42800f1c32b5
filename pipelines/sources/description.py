"""Options of data sources, the interface of source descriptions, and the choice of splits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pipelines import nests
from pipelines.nests import Spec
from pipelines.preprocessing import preprocessing
from pipelines.source import Source
from pipelines.sources import held_out
from pipelines.sources.held_out import Fraction
from pipelines.sources.overlap import refuse_overlap
from pipelines.splits import DataSplit


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options that select and prepare data; most are named as in the engine's `DataOptions`."""

    cache_dir: str
    data_dir: str | None = None
    train_split: str = "train"
    validation_split: str | Mapping[str, str] = "0.1"  # or such texts by the name of the set
    test_split: str = "auto"
    test_flag: str = "test_split"  # name of the option that gave the test split, for messages
    input_features: str = ""
    target_features: str = ""
    image_size: tuple[int, int] | None = None
    fit: str = "pad"
    antialias: bool = True
    scale: str = "auto"
    context: int = 0  # tokens of a window of a text; 0: as the source says
    tokens: str = "auto"  # what a token is, see `pipelines.vocabulary`; "auto": as the source says
    allow_overlap: bool = False
    skip_damaged: bool = False
    prepared_only: bool = False  # a data set that would have to be prepared is an error
    registered: tuple[str, ...] = ()  # names of the user's own sources, for messages

    @property
    def validation_texts(self) -> dict[str, str]:
        """Fractions or splits by the name of the validation set; {} for none."""
        if isinstance(self.validation_split, Mapping):
            return dict(self.validation_split)
        text = self.validation_split.strip()
        return {} if held_out.fraction(text) == 0 else {"validation": text}

    @property
    def is_default(self) -> bool:
        """Whether `validation_split` has its default value, so that a source's own sets are used.

        A source has its own sets if its files or its description give them.
        """
        return self.validation_split == SourceOptions.validation_split

    def validation_option(self, key: str) -> str:
        """Returns the option that gives a validation set: "validation_split" and any name of it."""
        named = isinstance(self.validation_split, Mapping) and key != "validation"
        return f"validation_split={key}" if named else "validation_split"

    def validation_flag(self, key: str) -> str:
        """Returns option and value of a validation set, such as "--validation_split=a=0.1"."""
        text = self.validation_split
        text = text.get(key, "") if isinstance(text, Mapping) else text
        return f"--{self.validation_option(key)}={text}"


class Description(Protocol):
    """Interface of a description of a data set, as a registered source function returns it."""

    def open(self, name: str, options: SourceOptions) -> Source:
        """Opens the data set and returns it as a source, called `name` in messages.

        Raises:
          ValueError: when the data set cannot be opened.
        """


# A split, or a part of one, such as "train[:80%]": its name, and both bounds, or None.
SLICE = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


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
    match = SLICE.fullmatch(text.strip())
    if match is None or match[1] not in splits:
        raise ValueError(f"--{flag}={text}: {name} has {', '.join(splits)}, or a part: train[:80%]")
    split = splits[match[1]]
    start, stop = bounds(match[2], match[3], len(split))
    if start >= stop:
        raise ValueError(f"--{flag}={text}: holds no examples of {name}; give another")
    return split.part(start, stop, text.strip()) if "[" in text else split


def bounds(first: str | None, last: str | None, count: int) -> tuple[int, int]:
    """Returns the positions of a slice, first and past-the-last, from 0 to `count`.

    Args:
      first: text before the colon of a slice: "10", "-10", "10%", or None for the start.
      last: text after it; None for the end.
      count: number of elements.
    """

    def position(bound: str | None, default: int) -> int:
        if bound is None:
            return default
        percent = bound.endswith("%")
        at = round(int(bound[:-1]) * count / 100) if percent else int(bound)
        return min(max(at + count if bound.startswith("-") else at, 0), count)

    return position(first, 0), position(last, count)


def validation_sets(
    name: str, train: DataSplit, options: SourceOptions, named: Callable[[str, str], DataSplit]
) -> tuple[DataSplit, dict[str, DataSplit]]:
    """Returns what `--validation_split` leaves of the training split, and the validation sets.

    Fractions are cut off the end of the training split, see `held_out.cut`.

    Args:
      name: name of the data set, for messages.
      train: the training split.
      options: the options of the data set.
      named: returns the split that a text names, for the option that gives it and the text.

    Raises:
      ValueError: when a split or a fraction cannot be used.
    """
    texts = options.validation_texts
    values = {key: held_out.fraction(text) for key, text in texts.items()}
    fractions = {
        key: Fraction(options.validation_flag(key), value)
        for key, value in values.items()
        if value is not None
    }
    train, sets = held_out.cut(name, train, fractions)
    return train, {
        key: sets[key] if key in sets else named(options.validation_option(key), text)
        for key, text in texts.items()
    }


def choose_splits(
    name: str, given: Mapping[str, DataSplit], options: SourceOptions
) -> dict[str, Any]:
    """Returns the training split, validation sets and test split, by the fields of `Source`.

    `--train_split` and `--test_split` name splits or parts of splits; "" is no test split, and
    "auto" is `given["test"]`, if there is one. `--validation_split` names a split too, or is a
    fraction that is taken from the end of the training split ("" or 0: no validation split), or
    gives several sets by name. Its default value selects the validation sets in `given` instead, if
    there are any: all but "train" and "test".

    Args:
      name: name of the data set, for messages.
      given: the splits of the data set by name.
      options: the options of the data set.

    Raises:
      ValueError: when an option names an unknown or empty split, when a fraction is out of range or
        leaves a split empty, or when splits share examples and the options do not allow that.
    """
    train = named(name, given, "train_split", options.train_split)
    sets = {key: split for key, split in given.items() if key not in ("train", "test")}
    if not (sets and options.is_default):
        train, sets = validation_sets(
            name, train, options, lambda flag, text: named(name, given, flag, text)
        )
    test: DataSplit | None = given.get("test")
    if options.test_split != "auto":
        flagged = options.test_flag, options.test_split
        test = named(name, given, *flagged) if options.test_split else None
    return checked(train, sets, test, options)


def checked(
    train: DataSplit,
    sets: Mapping[str, DataSplit],
    test: DataSplit | None,
    options: SourceOptions,
) -> dict[str, Any]:
    """Returns the splits by the fields of `Source`, after a check that they share no example.

    Nor may an example be twice in one split. With the option `allow_overlap`, nothing is checked.
    The test split is not checked if it was given by `--split`, as for the evaluation of any split.

    Raises:
      ValueError: when an example is in two splits, or twice in one.
    """
    flags = {
        "train": f"--train_split={options.train_split}",
        **{key: options.validation_flag(key) for key in sets},
        "test": f"--{options.test_flag}={options.test_split}",
    }
    compared = {"train": train, **sets}
    if test is not None and options.test_flag != "split":
        compared["test"] = test
    refuse_overlap(compared, options.allow_overlap, flags)
    return {"train": train, "validation_sets": dict(sets), "test": test}


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
    chosen = choose_splits(name, given, options)
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
