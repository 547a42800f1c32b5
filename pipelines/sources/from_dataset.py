"""Data sets read from a user's sequential `tf.data` pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.errors import one_line_message
from pipelines.sequential import Make, SequentialSplit
from pipelines.source import Source
from pipelines.sources import description, held_out
from pipelines.sources.description import SourceOptions
from pipelines.splits import ArrayTable, DataSplit, whole

_NOTE = (
    "the training examples come from a tf.data pipeline: their order is the pipeline's, a resumed "
    "run reads its epoch again from the start, and overlap with other splits is not checked"
)


@dataclasses.dataclass(frozen=True, eq=False)
class FromDataset:
    """Description of a data set in a pipeline; fields as the arguments of `from_dataset`."""

    make: Make
    examples: int
    version: str
    validation: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None
    test: Callable[[], Any] | None
    class_names: int | Sequence[str]

    def open(self, name: str, options: SourceOptions) -> Source:
        """Returns the source, called `name` in messages; reads validation and test into memory.

        Raises:
          ValueError: when a pipeline cannot be used, or an option does not apply.
        """
        description.refuse_unusable(name, options, self.examples)
        class_names = description.class_names_of(self.class_names)  # type: ignore[arg-type]
        spec = self._spec(name)
        held: dict[str, DataSplit] = {}
        makes = held_out.sets_of(name, self.validation)
        makes |= {} if self.test is None else {"test": self.test}
        for key, make in makes.items():
            table = ArrayTable(_read(f"{key} of {name}", make, spec))
            held[key] = whole(key, table, len(tf.nest.flatten(table.arrays)[0]))
        if options.train_split != "train":
            raise ValueError(f"--train_split={options.train_split}: {name} has one pipeline: train")
        asked = {} if options.is_default else options.validation_texts
        flags = {key: options.validation_flag(key) for key in asked}
        if options.test_flag == "test_split":  # else any split is evaluated, of train too
            asked["test"], flags["test"] = options.test_split, f"--test_split={options.test_split}"
        for key, text in asked.items():
            if text.split("[")[0].strip() == "train" or held_out.fraction(text):
                raise ValueError(
                    f"{flags[key]}: {name} is a pipeline, which nothing can be cut off: give it a "
                    f"{key if key == 'test' else 'validation'} pipeline"
                )
        if options.is_default and not makes.keys() - {"test"}:
            options = dataclasses.replace(options, validation_split="0")
        train = SequentialSplit("train", self.make, spec, self.version, 0, self.examples)
        splits = {"train": train, **held}
        return description.decoded_source(
            name, self.version, spec, splits, class_names, options, notes=(_NOTE,)
        )

    def _spec(self, name: str) -> Any:
        try:
            spec = self.make(0, 0).element_spec
        except Exception as error:  # any error of the user's function
            raise ValueError(
                f"{name}: make(0, 0) failed: {type(error).__name__}: {one_line_message(error, 160)}"
            ) from error
        if not isinstance(spec, tuple) or len(spec) != 2:
            raise ValueError(f"{name}: the elements of the pipeline have to be (inputs, targets)")
        return description.checked_specs(name, spec)


def from_dataset(
    make: Make,
    *,
    examples: int,
    version: str,
    validation: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None = None,
    test: Callable[[], Any] | None = None,
    class_names: int | Sequence[str] = (),
) -> FromDataset:
    """Describes a pipeline without random access; for functions that `tl.source` registers.

    Training streams the examples. Unlike with other sources, the order of an epoch is that of the
    pipeline, a resumed run reads its epoch again from the start, splits are not compared, and only
    `version` identifies the data.

    Args:
      make: returns the `tf.data.Dataset` of (inputs, targets), one example per element, for a seed
        and an epoch; it must return the same examples for the same arguments.
      examples: number of examples of each epoch; further ones are not read.
      version: text that identifies the data for resumed runs; must change when the data changes.
      validation: returns a finite `tf.data.Dataset`, which is read into memory; a dict of such
        functions: several validation sets by name; None: no validation split.
      test: returns a finite `tf.data.Dataset`, which is read into memory; None: no test split.
      class_names: names of the classes, or their number, if the targets are class labels.
    """
    return FromDataset(make, examples, version, validation, test, class_names)


def _examples(name: str, make: Callable[[], Any]) -> Iterator[Any]:
    """Yields the examples of a finite pipeline as nests of NumPy arrays.

    Raises:
      ValueError: when the pipeline cannot be created or an example cannot be read; the message has
        one line.
    """
    count = 0
    try:
        for example in make().as_numpy_iterator():
            yield example
            count += 1
    except Exception as error:  # any error of the user's functions
        why = f"{type(error).__name__}: {one_line_message(error, 160)}"
        raise ValueError(f"example {count} of {name} cannot be read: {why}") from error


def _read(name: str, make: Callable[[], Any], spec: Any) -> Any:
    """Reads a finite pipeline into a nest of arrays [n, ...].

    Raises:
      ValueError: when an example cannot be read or does not match `spec`, or there is none.
    """
    rows: list[list[np.ndarray]] = []
    signature = nests.signature(spec)
    for example in _examples(name, make):
        found = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(np.shape(leaf), np.asarray(leaf).dtype), example
        )
        if nests.signature(found) != signature:
            raise ValueError(
                f"example {len(rows)} of {name} is {nests.described(found)}, and those to train on "
                f"are {nests.described(spec)}"
            )
        rows.append(tf.nest.flatten(example))
    if not rows:
        raise ValueError(f"{name} has no examples")
    leaves = [np.stack(each) for each in zip(*rows, strict=True)]
    return tf.nest.pack_sequence_as(spec, leaves)
