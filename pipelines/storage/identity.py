"""Digests of the training and validation data, by which a resumed run detects changed data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from pipelines import nests
from pipelines.source import Source
from pipelines.splits import DataSplit
from pipelines.storage import cache
from pipelines.storage.decode import decode_split
from pipelines.storage.fingerprint import examples_digest
from pipelines.storage.records import RecordSplit

_SMALL = 256 << 20  # largest decoded size, in bytes, at which decoded examples are hashed


class DataIdentity(NamedTuple):
    """Digests of the training and validation examples.

    If TFDS prepares a data set twice, its files differ, because the features of an example are
    written in no fixed order. So the decoded examples of a small data set are hashed, too.
    """

    files: str = ""  # of the stored examples, see `DataSplit.digest`
    examples: str = ""  # of the decoded examples of each split; "" if not computed

    def matches(self, other: DataIdentity) -> bool:
        """Returns whether both are of the same data.

        That is so if their `files` are equal, or their `examples` are equal and not "".
        """
        decoded = bool(self.examples) and self.examples == other.examples
        return decoded or self.files == other.files


def data_identity(source: Source, cache_dir: str) -> DataIdentity:
    """Returns the digests of the training split and the validation sets.

    The digest of the decoded examples is included if they take at most 256 MiB in total and are not
    stored decoded. Examples that are not cached in `cache_dir` are decoded and cached.

    Raises:
      ValueError: when a file is damaged, or an example cannot be decoded.
      OSError: when a file cannot be read.
    """
    splits = [source.train, *source.validation_sets.values()]
    decoded_bytes = sum(map(len, splits)) * nests.example_bytes(source.decoded)
    # Of what is stored decoded, the digest of the stored examples is all there is to know.
    small = source.decode is not None and decoded_bytes <= _SMALL
    examples = "-".join(_examples(source, split, cache_dir)[:32] for split in splits if small)
    return DataIdentity(_stored(splits, source.recipe, cache_dir), examples)


def _stored(splits: Sequence[DataSplit], recipe: str, cache_dir: str) -> str:
    """Returns a digest of the stored examples and `recipe`; keeps those of files in `cache_dir`.

    If all splits are TFRecord files, the digest is computed as in version 0.4.0.
    """
    records = [split for split in splits if isinstance(split, RecordSplit)]
    if len(records) == len(splits):
        ranges = [each for part in records for each in part.ranges]
        return examples_digest(ranges, recipe, cache_dir=cache_dir)
    text = "\n".join([recipe, *(split.digest() for split in splits)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _examples(source: Source, split: DataSplit, cache_dir: str) -> str:
    name = cache.key(split, source.recipe)
    digest = cache.stored_digest(cache_dir, name)
    if digest is None:
        decoded = decode_split(source, split)
        cache.store(cache_dir, name, decoded)
        digest = cache.content_digest(decoded)
    return digest
