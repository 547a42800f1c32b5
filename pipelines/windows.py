"""Table of the windows of a text, which are the examples of a language model."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from pipelines.nests import Nest, Spec
from pipelines.rows import Rows


class WindowTable:
    """Table of the windows of a text, stored decoded: (inputs, targets), both [context].

    Args:
      ids: ids of the tokens, [n].
      context: tokens of a window.
      stride: tokens from the start of a window to that of the next.

    Attributes:
      windows: number of windows.
      spec: specs of an example.
    """

    def __init__(self, ids: np.ndarray, context: int, stride: int) -> None:
        self._ids, self._context, self._stride = ids, context, stride
        self.windows = (len(ids) - context - 1) // stride + 1
        spec = tf.TensorSpec([context], ids.dtype)
        self.spec: tuple[Spec, Spec] = (spec, spec)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (inputs, targets) by row, each [k, context]."""
        starts = np.asarray(rows, np.int64)[:, None] * self._stride
        pieces = self._ids[starts + np.arange(self._context + 1)]
        return pieces[:, :-1], pieces[:, 1:]

    def targets(self, rows: np.ndarray | Rows) -> Nest:
        """Returns the targets by row, [k, context]."""
        return self.read(np.asarray(rows))[1]

    def location(self, row: int) -> str:
        """Returns "window" and the row, for messages."""
        return f"window {row}"

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a digest of the text, of the windows and of `rows`; ignores `all_bytes`."""
        content = f"{self._ids.dtype} {self._context} {self._stride} {len(rows)}\n"
        digest = hashlib.sha256(content.encode())
        digest.update(np.ascontiguousarray(self._ids).tobytes())
        if not isinstance(rows, Rows):
            digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
        elif len(rows) < self.windows:
            digest.update(f"{rows}\n".encode())
        return digest.hexdigest()[:32]
