"""Are these the examples they were? What tells a run that its data has changed.

The same examples prepared twice are other bytes: the fields of a record are written in any order.
So there are two answers. Files are compared first; where they differ and the data set is small
enough to have been decoded, its decoded examples are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines import cache
from pipelines.decode import decode_all
from pipelines.fingerprint import digest_of_ranges
from pipelines.source import Records, Source

_SMALL = 256 << 20  # bytes, decoded, up to which examples are compared


class Identity(NamedTuple):
    """Of the examples that are trained on and validated with.

    files: digest of what the files hold.
    examples: of what is decoded from them; empty where that is not known.
    """

    files: str = ""
    examples: str = ""

    def is_that_of(self, other: Identity) -> bool:
        """Whether both are of the same examples, as far as can be told."""
        decoded = bool(self.examples) and self.examples == other.examples
        return decoded or self.files == other.files


def identity_of(source: Source, cache_dir: str) -> Identity:
    """What the training and the validation split are.

    Args:
      source: the data set.
      cache_dir: of decoded examples; what is small and not there yet is decoded.
    """
    splits = [split for split in (source.train, source.validation) if split is not None]
    ranges = [each for split in splits for each in split.ranges]
    per_example = int(np.prod(source.image_shape)) * np.dtype(source.dtype).itemsize
    small = sum(map(len, splits)) * per_example <= _SMALL
    examples = "-".join(_examples(source, split, cache_dir)[:32] for split in splits if small)
    return Identity(digest_of_ranges(ranges, source.recipe), examples)


def _examples(source: Source, records: Records, cache_dir: str) -> str:
    name = cache.key(records.ranges, source.recipe)
    found = cache.digest_of(cache_dir, name)
    if found is None:
        decoded = decode_all(source, records)
        cache.store(cache_dir, name, *decoded)
        found = cache.content_digest(*decoded)
    return found
