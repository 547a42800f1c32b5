"""Computes digests of the training data, to detect that the data of a run has changed.

Preparing the same examples twice gives different bytes, because the features of an example are
written in no fixed order. So there are two digests: of the files, and of the decoded examples if
the data set is small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines import cache
from pipelines.decode import decode_split
from pipelines.fingerprint import examples_digest
from pipelines.source import DataSplit, Source

_SMALL = 256 << 20  # largest decoded size, in bytes, at which decoded examples are hashed


class DataIdentity(NamedTuple):
    """Digests of the training and validation examples.

    Attributes:
      files: digest of the contents of the files.
      examples: digests of the decoded examples of each split; "" if not computed.
    """

    files: str = ""
    examples: str = ""

    def matches(self, other: DataIdentity) -> bool:
        """Returns whether either digest shows that both identities are of the same examples."""
        decoded = bool(self.examples) and self.examples == other.examples
        return decoded or self.files == other.files


def data_identity(source: Source, cache_dir: str) -> DataIdentity:
    """Returns the identity of the training and the validation split.

    Args:
      source: the data set.
      cache_dir: directory of cached decoded examples; a small data set that is not in it is
        decoded.
    """
    splits = [split for split in (source.train, source.validation) if split is not None]
    ranges = [each for split in splits for each in split.ranges]
    per_example = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize
    small = sum(map(len, splits)) * per_example <= _SMALL
    examples = "-".join(_examples(source, split, cache_dir)[:32] for split in splits if small)
    return DataIdentity(examples_digest(ranges, source.recipe), examples)


def _examples(source: Source, records: DataSplit, cache_dir: str) -> str:
    name = cache.key(records.ranges, source.recipe)
    found = cache.stored_digest(cache_dir, name)
    if found is None:
        decoded = decode_split(source, records)
        cache.store(cache_dir, name, *decoded)
        found = cache.content_digest(*decoded)
    return found
