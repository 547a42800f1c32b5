"""Data sets in CSV files, with a header line that names the columns."""

from __future__ import annotations

import csv as csv_format
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.nests import Nest
from pipelines.source import Source
from pipelines.sources.arrays import Arrays
from pipelines.sources.description import SourceOptions

Columns = str | Sequence[str] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Csv:
    """Description of a data set in a CSV file; fields as the arguments of `csv`."""

    path: str
    inputs: Columns
    target: Columns
    validation: float | str | Mapping[str, float | str] | None
    test: float | str | None
    delimiter: str
    shuffle: bool

    def open(self, name: str, options: SourceOptions) -> Source:
        """Reads the CSV files and returns the source, called `name` in messages.

        Raises:
          ValueError: if a file cannot be read, a column is missing, a row is invalid (the message
            names the line), a split cannot be used, or an option does not apply to CSV files.
        """
        table = _read(self.path, self.delimiter)
        class_names = self._class_names(table)

        def pair(content: _Table) -> tuple[Nest, Nest]:
            inputs = _columns(content, self.inputs)
            if class_names:
                return inputs, content.labels(str(self.target), class_names)
            return inputs, _columns(content, self.target)

        def held(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: held(each) for key, each in value.items()}
            return pair(_read(value, self.delimiter)) if isinstance(value, str) else value

        inputs, targets = pair(table)
        described = Arrays(
            inputs, targets, held(self.validation), held(self.test), class_names, self.shuffle
        )
        source = described.open(name, options)
        features = f"inputs {_listed(self.inputs)}, target {_listed(self.target)}"
        return dataclasses.replace(source, version=os.path.basename(self.path), features=features)

    def _class_names(self, table: _Table) -> tuple[str, ...]:
        """Returns the names of the classes: the sorted distinct texts of the target column.

        Returns () for several target columns, and for a column whose first text is a number.

        Raises:
          ValueError: when there is no such column.
        """
        if not isinstance(self.target, str) or table.is_numeric(self.target):
            return ()
        return tuple(sorted(set(table.texts(self.target))))


def csv(
    path: str,
    *,
    inputs: Columns,
    target: Columns,
    validation: float | str | Mapping[str, float | str] | None = None,
    test: float | str | None = None,
    delimiter: str = ",",
    shuffle: bool = True,
) -> Csv:
    """Describes a data set in a CSV file; for functions that `tl.source` registers.

    Args:
      path: path of the file, in UTF-8, whose first line names the columns.
      inputs: names of columns of numbers, which become a float32 vector; a single name, which
        becomes a scalar; or a dict of these, which becomes a nest.
      target: as `inputs`. A single column whose first value is not a number becomes class labels,
        int32; the classes are the sorted distinct texts of the column.
      validation: a fraction of the examples, or the path of another file; a dict of these: several
        validation sets by name; None: `--validation_split` decides.
      test: a fraction or a path; None: no test split.
      delimiter: character between columns.
      shuffle: whether fractions are taken from a random order of the examples, which is the same in
        every run. False: fractions are taken from the end, as for time series.
    """
    return Csv(path, inputs, target, validation, test, delimiter, shuffle)


@dataclasses.dataclass(frozen=True)
class _Table:
    """The content of a CSV file as texts by column, without the header."""

    path: str
    columns: dict[str, list[str]]
    lines: list[int]  # number of each row's last line in the file

    def texts(self, column: str) -> list[str]:
        """Returns the texts of a column; ValueError if there is no such column."""
        if column not in self.columns:
            known = ", ".join(self.columns)
            raise ValueError(f"{self.path} has no column {column!r}: it has {known}")
        return self.columns[column]

    def is_numeric(self, column: str) -> bool:
        """Returns whether the first text of a column is a number; False for an unknown column."""
        try:
            float(self.texts(column)[0])
        except ValueError:
            return False
        return True

    def numbers(self, column: str) -> np.ndarray:
        """Returns a column as float32 [n].

        Raises:
          ValueError: when there is no such column, or a text is not a number; the message names the
            first such line.
        """
        texts = self.texts(column)
        try:
            numbers = np.array(texts, np.float64)
        except ValueError:
            for line, text in zip(self.lines, texts, strict=True):
                try:
                    float(text)
                except ValueError:
                    raise ValueError(
                        f"{self.path}, line {line}: column {column!r} is {text!r} and not a number"
                    ) from None
            raise
        return numbers.astype(np.float32)

    def labels(self, column: str, class_names: Sequence[str]) -> np.ndarray:
        """Returns a column of class names as labels, the indices in `class_names`, int32 [n].

        Raises:
          ValueError: when there is no such column, or a text is not a class name; the message names
            the first such line.
        """
        labels = {class_name: label for label, class_name in enumerate(class_names)}
        for line, text in zip(self.lines, self.texts(column), strict=True):
            if text not in labels:
                raise ValueError(
                    f"{self.path}, line {line}: column {column!r} is {text!r}, which no example to "
                    "train on is"
                )
        return np.array([labels[text] for text in self.texts(column)], np.int32)


def _columns(table: _Table, columns: Columns) -> Nest:
    if isinstance(columns, str):
        return table.numbers(columns)
    if isinstance(columns, Mapping):
        return {name: _columns(table, part) for name, part in columns.items()}
    return np.stack([table.numbers(column) for column in columns], axis=1)


def _listed(columns: Columns) -> str:
    if isinstance(columns, str):
        return columns
    parts = columns.values() if isinstance(columns, Mapping) else columns
    return ", ".join(map(_listed, parts))


def _read(path: str, delimiter: str) -> _Table:
    """Reads a CSV file in UTF-8; strips white space around texts, and skips empty lines.

    Raises:
      ValueError: when the file cannot be read, is not a CSV file, has no header or no examples, has
        two columns of one name, or has a row that is not as long as the header.
    """
    try:
        with open(os.path.expanduser(path), newline="", encoding="utf-8-sig") as file:
            reader = csv_format.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty: its first line has to name the columns")
    header = [name.strip() for name in lines[0][1]]
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path} has two columns {twice[0]!r}: give each a name of its own")
    lines = [(line, row) for line, row in lines[1:] if row]
    for line, row in lines:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: has {len(row)} columns and the header {len(header)}"
            )
    if not lines:
        raise ValueError(f"{path} has no examples")
    columns = [list(map(str.strip, column)) for column in zip(*(r for _, r in lines), strict=True)]
    return _Table(path, dict(zip(header, columns, strict=True)), [line for line, _ in lines])
