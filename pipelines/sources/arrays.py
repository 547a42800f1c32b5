"""Data sets of NumPy arrays in memory, and of `.npz` files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.errors import one_line_message
from pipelines.nests import Nest
from pipelines.source import Source
from pipelines.sources import description, held_out
from pipelines.sources.description import SourceOptions
from pipelines.sources.held_out import Fraction
from pipelines.splits import ArrayTable, DataSplit, whole

_NUMBERS = "biuf"  # kinds of NumPy dtypes

Held = float | tuple[Nest, Nest]  # a held-out split: a fraction, or (inputs, targets)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Description of a data set of arrays in memory; fields as the arguments of `arrays`."""

    inputs: Nest
    targets: Nest
    validation: Held | Mapping[str, Held] | None
    test: Held | None
    class_names: int | Sequence[str]
    shuffle: bool = True

    def open(self, name: str, options: SourceOptions) -> Source:
        """Loads the arrays and returns the source, called `name` in messages.

        Raises:
          ValueError: when a value or file is no valid array, the arrays do not match, a label is
            invalid, a split cannot be used, or an option does not apply.
        """
        description.refuse_unusable(name, options)
        class_names = description.class_names_of(self.class_names)  # type: ignore[arg-type]
        whole_arrays = _loaded(name, self.inputs, self.targets, class_names)
        spec = description.checked_specs(name, nests.spec_of(whole_arrays))
        splits = given_splits(
            name, whole_arrays, self.validation, self.test, class_names, self.shuffle
        )
        return description.decoded_source(name, "arrays", spec, splits, class_names, options)


def arrays(
    *,
    inputs: Any,
    targets: Any,
    validation: Any = None,
    test: Any = None,
    class_names: int | Sequence[str] = (),
    shuffle: bool = True,
) -> Arrays:
    """Describes a data set of NumPy arrays; for functions that `tl.source` registers.

    Args:
      inputs: array [n, ...], a nest (dict, tuple) of arrays with the same first axis, or the path
        of an `.npz` file and a name in it, such as "data.npz:images", or of an `.npy` file. float64
        becomes float32.
      targets: as `inputs`. Integer class labels become int32.
      validation: a fraction of the examples, or separate (inputs, targets); a dict of these:
        several validation sets by name; None: `--validation_split` decides.
      test: a fraction, or (inputs, targets); None: no test split. A fraction is split off before
        those of validation.
      class_names: names of the classes, or their number, if the targets are class labels.
      shuffle: whether fractions are taken from a random order of the examples, which is the same in
        every run. False: fractions are taken from the end, as for time series.
    """
    return Arrays(inputs, targets, validation, test, class_names, shuffle)


def given_splits(
    name: str,
    arrays: tuple[Nest, Nest],
    validation: Held | Mapping[str, Held] | None,
    test: Held | None,
    class_names: tuple[str, ...],
    shuffle: bool,
) -> dict[str, DataSplit]:
    """Returns "train", the validation sets and "test", as far as they are given, by name.

    Args:
      name: name of the data set, for messages.
      arrays: (inputs, targets), nests of arrays [n, ...].
      validation: a fraction of the examples (0: no split), or (inputs, targets), or a dict of these
        by name; None: no split.
      test: a fraction, which is split off before those of validation, or (inputs, targets); None:
        no split.
      class_names: names of the classes; empty if the targets are not class labels.
      shuffle: whether the training split is in a fixed random order, and so fractions are random.

    Raises:
      ValueError: when a fraction or the arrays of a held-out split are invalid.
    """
    count = len(tf.nest.flatten(arrays)[0])
    table = ArrayTable(arrays)

    def separate(key: str, pair: Any) -> DataSplit:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{key} of {name} has to be a fraction or a pair (inputs, targets)")
        own = _loaded(f"{key} of {name}", *pair, class_names)
        if nests.signature(nests.spec_of(own)) != nests.signature(table.spec):
            raise ValueError(
                f"{key} of {name} has examples of {nests.described(nests.spec_of(own))}, and those "
                f"to train on are of {nests.described(table.spec)}"
            )
        return whole(key, ArrayTable(own), len(tf.nest.flatten(own)[0]))

    return held_out_splits(name, whole("train", table, count, shuffle), validation, test, separate)


def held_out_splits(
    name: str,
    train: DataSplit,
    validation: Any,
    test: Any,
    separate: Callable[[str, Any], DataSplit],
) -> dict[str, DataSplit]:
    """Returns "train", the validation sets and "test", as far as they are given, by name.

    Fractions are cut off the end of the training split: first that of the test split, then those of
    the validation sets, of what is left, the first one at the very end.

    Args:
      name: name of the data set, for messages.
      train: all examples that are not held out separately.
      validation: a fraction (0: no split) or a separate split; a dict of these by name; or None.
      test: a fraction or a separate split, or None.
      separate: returns the split, called by the first argument, that the second one describes.

    Raises:
      ValueError: when a name or a fraction is invalid, a split would be empty, and as `separate`.
    """
    held = {} if test is None else {"test": test}
    splits = {"train": train}
    for given in (held, held_out.sets_of(name, validation)):
        parts = {
            key: Fraction(f"{key}={each:g} of {name}", float(each))
            for key, each in given.items()
            if isinstance(each, (int, float))
        }
        rest, found = held_out.cut(
            name, splits["train"], {key: part for key, part in parts.items() if part.value != 0}
        )
        splits["train"] = _renamed(rest, "train")
        for key, each in given.items():
            if key in found:
                splits[key] = _renamed(found[key], key)
            elif key not in parts:
                splits[key] = separate(key, each)
    return splits


def _renamed(split: DataSplit, name: str) -> DataSplit:
    return split.part(0, len(split), name)


def _loaded(
    name: str, inputs: Nest, targets: Nest, class_names: tuple[str, ...]
) -> tuple[Nest, Nest]:
    """Returns (inputs, targets) as nests of arrays [n, ...], with class labels as int32.

    Raises:
      ValueError: when a value or file is no valid array, the first axes differ or are 0, or a class
        label is invalid.
    """
    pair = _as_arrays(f"{name}, inputs", inputs), _as_arrays(f"{name}, targets", targets)
    paths = nests.paths({"inputs": pair[0], "targets": pair[1]})
    leaves = tf.nest.flatten(pair)
    for path, leaf in zip(paths, leaves, strict=True):
        if not leaf.ndim or len(leaf) != len(leaves[0]):
            raise ValueError(
                f"{path} of {name} has the shape {leaf.shape} and {paths[0]} has "
                f"{leaves[0].shape}: the first axes, of examples, have to be equal"
            )
    if not len(leaves[0]):
        raise ValueError(f"{name} has no examples")
    return pair[0], as_labels(name, pair[1], class_names)


def _as_arrays(where: str, nest: Nest) -> Nest:
    """Returns a nest of values as a nest of arrays; `where` names it in messages, with the path.

    Raises:
      ValueError: as `as_array`.
    """
    if not isinstance(nest, (Mapping, tuple)):
        return as_array(where, nest)
    nest = nests.without_lists(nest)
    leaves = zip(nests.paths(nest), tf.nest.flatten(nest), strict=True)
    return tf.nest.pack_sequence_as(nest, [as_array(f"{where} {p}", leaf) for p, leaf in leaves])


def as_labels(name: str, targets: Nest, class_names: tuple[str, ...]) -> Nest:
    """Returns class labels, integers [n], as int32; returns other targets unchanged.

    Targets are class labels if there are class names and the targets are one array of rank 1.

    Raises:
      ValueError: when class labels are not integers, or one is not in 0..classes - 1.
    """
    if not class_names or tf.nest.is_nested(targets) or targets.ndim != 1:
        return targets
    if not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"the class labels of {name} are {targets.dtype}; give integers")
    wrong = np.flatnonzero((targets < 0) | (targets >= len(class_names)))
    if len(wrong):
        raise ValueError(
            f"example {wrong[0]} of {name} has the class label {targets[wrong[0]]}, and there are "
            f"{len(class_names)} classes"
        )
    return targets.astype(np.int32)


def as_array(name: str, value: Any) -> np.ndarray:
    """Returns a value as a NumPy array: loads "file.npz:key" or a .npy file, makes float64 float32.

    Raises:
      ValueError: when the value is not an array of numbers, or a file cannot be read.
    """
    if isinstance(value, (str, os.PathLike)):
        value = _from_file(name, os.fspath(value))
    try:
        array = np.asarray(value)
    except Exception as error:
        why = _unlike_the_first(value) or one_line_message(error, 120)
        raise ValueError(f"{name} cannot be an array: {why}") from None
    if array.dtype.kind not in _NUMBERS:
        why = _unlike_the_first(value) or f"it has values of {array.dtype}"
        raise ValueError(f"{name}: {why}; inputs and targets have to be arrays of numbers")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _unlike_the_first(rows: Any) -> str:
    """Describes the first row of another shape than row 0, or without numbers.

    Returns "" if there is none, or if `rows` cannot be converted to arrays.
    """
    shape = None
    with contextlib.suppress(Exception):  # whatever a user gives instead of rows
        for index, row in enumerate(rows):
            array = np.asarray(row)
            shape = array.shape if shape is None else shape
            if array.shape != shape:
                return f"row {index} has the shape {array.shape} and row 0 {shape}"
            if array.dtype.kind not in _NUMBERS:
                return f"row {index} has values of {array.dtype}"
    return ""


def _from_file(name: str, text: str) -> np.ndarray:
    path, colon, key = text.rpartition(":")
    path, key = (path, key) if colon and not os.path.exists(text) else (text, "")
    try:
        content = np.load(os.path.expanduser(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name}: cannot read {path}: {one_line_message(error, 120)}") from None
    if isinstance(content, np.ndarray):
        return content
    with content:
        if key not in content:
            known = ", ".join(content)
            raise ValueError(f"{name}: {path} has the arrays {known}; give one as {path}:NAME")
        return content[key]
