"""TFRecord files -> any example by its number, without reading those before it.

A TFRecord file is a sequence of [length uint64][crc uint32][bytes][crc uint32]. One sequential
pass through tf.data, which checks every CRC, gives the lengths and so where each example lies;
afterwards examples are sliced out of the mapped file. So both feeds see the same examples in the
same order, a resume costs nothing, and memory grows with the data set by a few bytes an example.
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
_MAPPED = 200  # files at a time: each takes one of the files that a process may have open


class RecordReader:
    """Examples of a split by number.

    Args:
      ranges: (path, first record, past-the-last record) of each file, in the split's order.

    Raises:
      ValueError: when a file is missing, damaged or shorter than promised.
    """

    def __init__(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        self._paths = [path for path, _, _ in ranges]
        self._offsets = []
        for path, first, stop in ranges:
            offsets = _offsets(path, os.path.getsize(path), os.stat(path).st_mtime_ns)
            if stop >= len(offsets):
                raise ValueError(
                    f"{path} holds {len(offsets) - 1} examples and {stop} were promised: the data "
                    "set is damaged; delete its folder and prepare it again"
                )
            self._offsets.append(offsets[first : stop + 1])
        counts = np.array([stop - first for _, first, stop in ranges], np.int64)
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self._file = functools.lru_cache(_MAPPED)(_mapped)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Serialized examples.

        Args:
          numbers: int [k], each in 0 .. len-1.

        Returns:
          object [k] of bytes.
        """
        found = np.empty(len(numbers), object)
        files = np.searchsorted(self._ends, numbers, side="right")
        places = (numbers - self._begins[files]).tolist()
        for i, (file, place) in enumerate(zip(files.tolist(), places, strict=True)):
            start, following = self._offsets[file][place : place + 2].tolist()
            found[i] = self._file(self._paths[file])[start : following - _FRAME]
        return found


def _mapped(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@functools.lru_cache(maxsize=1024)
def _offsets(path: str, size: int, modified: int) -> np.ndarray:
    """Where each example in a file begins, and where one behind the last would, int [n + 1].

    Of four bytes each in a file below 4 GiB: these are what memory does grow with. Size and time
    only key the memory of it.
    """
    del modified
    lengths = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(4096).map(tf.strings.length)
    try:
        found = list(lengths.as_numpy_iterator())
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(damaged(path, error)) from None
    except tf.errors.OpError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None
    frames = np.concatenate([[0], *found]).astype(np.int64) + _FRAME
    frames[0] = _HEADER
    return np.cumsum(frames).astype(np.uint32 if size + _HEADER < 1 << 32 else np.int64)


def damaged(where: str, error: tf.errors.OpError) -> str:
    """One line about data that cannot be read or decoded, and what to do."""
    return (
        f"damaged data in {where}: {reason(error)}; delete the data set's folder and prepare it "
        "again"
    )
