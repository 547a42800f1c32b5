"""TFRecord files -> any example by its number, without reading those before it.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One sequential
pass through tf.data, which checks every CRC, gives the lengths and so where each example lies;
afterwards examples are sliced out of the mapped file. So both feeds see the same examples in the
same order, a resume costs nothing, and memory does not grow with the data set.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.errors import reason

_HEADER = 12  # bytes before an example: its length and the length's CRC
_FRAME = 16  # bytes around an example, the CRC behind it included


class RecordReader:
    """Examples of a split by number.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.

    Raises:
      ValueError: when a file is missing, damaged or shorter than promised.
    """

    def __init__(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        self._files: list[mmap.mmap] = []
        starts, lengths, files = [], [], []
        for path, first, stop in ranges:
            all_lengths = _lengths(path, os.path.getsize(path), os.stat(path).st_mtime_ns)
            if stop > len(all_lengths):
                raise ValueError(
                    f"{path} holds {len(all_lengths)} examples and {stop} were promised: the data "
                    "set is damaged; delete its folder and prepare it again"
                )
            offsets = np.cumsum(all_lengths + _FRAME) - all_lengths - _FRAME + _HEADER
            starts.append(offsets[first:stop])
            lengths.append(all_lengths[first:stop])
            files.append(np.full(stop - first, len(self._files), np.int32))
            with open(path, "rb") as file:
                self._files.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._starts = np.concatenate(starts)
        self._lengths = np.concatenate(lengths)
        self._file = np.concatenate(files)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Serialized examples.

        Args:
          numbers: int [k], each in 0 .. len-1.

        Returns:
          object [k] of bytes.
        """
        found = np.empty(len(numbers), object)
        places = zip(
            self._file[numbers], self._starts[numbers], self._lengths[numbers], strict=True
        )
        for i, (file, start, length) in enumerate(places):
            found[i] = self._files[file][start : start + length]
        return found


@functools.lru_cache(maxsize=1024)
def _lengths(path: str, size: int, modified: int) -> np.ndarray:
    """Bytes of each example in a file, int64 [n]. Size and time only key the memory of it."""
    del size, modified
    lengths = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(4096).map(tf.strings.length)
    try:
        found = list(lengths.as_numpy_iterator())
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged(path, error)) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def damaged(where: str, error: tf.errors.OpError) -> str:
    """One line about data that cannot be read or decoded, and what to do."""
    return (
        f"damaged data in {where}: {reason(error)}; delete the data set's folder and prepare it "
        "again"
    )
