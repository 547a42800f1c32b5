"""Digests of the training and validation data, by which a resumed run detects changed data."""

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

    If TFDS prepares a data set twice, its files differ, because the features of an example are
    written in no fixed order. So the decoded examples of a small data set are hashed, too.
    """

    files: str = ""  # of the files, see `examples_digest`
    examples: str = ""  # of the decoded examples of each split; "" if not computed

    def matches(self, other: DataIdentity) -> bool:
        """Returns whether `files` or `examples` (not "") of both are equal: it is the same data."""
        decoded = bool(self.examples) and self.examples == other.examples
        return decoded or self.files == other.files


def data_identity(source: Source, cache_dir: str) -> DataIdentity:
    """Returns the digests of the training and the validation split.

    If both take at most 256 MiB decoded, this includes the digest of the decoded examples; those
    not in `cache_dir` are decoded and cached. An undecodable example is a ValueError.
    """
    splits = [split for split in (source.train, source.validation) if split is not None]
    ranges = [each for split in splits for each in split.ranges]
    per_example = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize
    small = sum(map(len, splits)) * per_example <= _SMALL
    examples = "-".join(_examples(source, split, cache_dir)[:32] for split in splits if small)
    return DataIdentity(examples_digest(ranges, source.recipe), examples)


def _examples(source: Source, records: DataSplit, cache_dir: str) -> str:
    name = cache.key(records.ranges, source.recipe)
    digest = cache.stored_digest(cache_dir, name)
    if digest is None:
        decoded = decode_split(source, records)
        cache.store(cache_dir, name, *decoded)
        digest = cache.content_digest(*decoded)
    return digest
