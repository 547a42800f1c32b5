"""Tokens of a text: conversion of text to ids, and of ids to text."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

KINDS = ("characters", "bytes")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # token of characters that the training text does not have


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a language model; the id of a token is its position.

    Attributes:
      kind: "characters" (Unicode code points) or "bytes" (of UTF-8).
      tokens: a character for each id; for bytes, the character whose code point is the byte. If
        `UNKNOWN` is among the characters, it stands for those that have no id.
    """

    kind: str
    tokens: tuple[str, ...]

    @property
    def dtype(self) -> type[np.integer]:
        """Type of ids: uint8 if it suffices, else int32."""
        return np.uint8 if len(self.tokens) <= 256 else np.int32

    def encode(self, text: str, where: str) -> np.ndarray:
        """Returns the ids of a text, [n] of `dtype`.

        Args:
          text: the text; lone surrogates, as in names of files, stand for bytes.
          where: where the text is from, which begins error messages.

        Raises:
          ValueError: if a character has no id.
        """
        if self.kind == "bytes":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        return self.encode_points(code_points(text), where)

    def encode_points(self, points: np.ndarray, where: str) -> np.ndarray:
        """Returns the ids of characters, given as code points, uint32 [n]; as `encode`."""
        known = np.array([ord(token) for token in self.tokens], np.uint32)
        order = np.argsort(known)
        places = np.minimum(np.searchsorted(known, points, sorter=order), len(known) - 1)
        ids = order[places]
        missing = known[ids] != points
        if missing.any():
            if UNKNOWN not in self.tokens:
                counts = collections.Counter(points[missing].tolist())
                point, count = counts.most_common(1)[0]
                more = f" and {len(counts) - 1} others" if len(counts) > 1 else ""
                raise ValueError(
                    f"{where} has characters that the training text does not have: {chr(point)!r} "
                    f"({count:,} times){more}; give --tokens=bytes"
                )
            ids = np.where(missing, self.tokens.index(UNKNOWN), ids)
        return ids.astype(self.dtype)

    def decode(self, ids: np.ndarray) -> str:
        """Returns the text of ids, integers [n]; invalid UTF-8 becomes replacement characters."""
        text = "".join(self.tokens[i] for i in ids.tolist())
        return text.encode("latin-1").decode("utf-8", "replace") if self.kind == "bytes" else text


BYTES = Vocabulary("bytes", tuple(map(chr, range(256))))


def code_points(text: str) -> np.ndarray:
    """Returns the code points of a text, uint32 [n]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def vocabulary_of(points: np.ndarray, unknown: bool) -> Vocabulary:
    """Returns the vocabulary of the characters in a text, ordered by code point.

    Args:
      points: code points of the text, uint32 [n].
      unknown: whether the last id is `UNKNOWN`, for characters that the text does not have.
    """
    tokens = tuple(map(chr, np.unique(points).tolist()))
    return Vocabulary(
        "characters", (*tokens, UNKNOWN) if unknown and UNKNOWN not in tokens else tokens
    )
