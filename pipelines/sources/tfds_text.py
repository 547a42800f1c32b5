"""Data sets of TFDS whose only feature is a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.sources.text import Text
from pipelines.storage.records import RecordSplit


def is_text(features: Mapping[str, Any]) -> bool:
    """Returns whether the only feature of a TFDS data set is a text."""
    return [type(each).__name__ for each in features.values()] == ["Text"]


def text_of(builder: Any, records: Callable[[str], RecordSplit], cache_dir: str) -> Text:
    """Returns the description of a data set of texts; the texts of a split are joined by newlines.

    Args:
      builder: builder of the data set.
      records: returns the records of a split by its name; raises ValueError if a file is missing or
        incomplete.
      cache_dir: directory where the index of the records is cached.
    """
    (feature,) = builder.info.features

    def content(split: str) -> bytes:
        of_split = records(split)
        stored = of_split.reader(cache_dir).read(np.arange(len(of_split)))
        examples = map(tf.train.Example.FromString, stored)
        return b"\n".join(each.features.feature[feature].bytes_list.value[0] for each in examples)

    contents = {split: functools.partial(content, split) for split in builder.info.splits}
    return Text(contents, version=str(builder.version))
