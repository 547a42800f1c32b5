"""Exceptions of failed steps and of interrupted work, importable before TensorFlow."""

from __future__ import annotations

import re

_MEMORY = re.compile(r"\bOOM\b|out of memory|OUT_OF_MEMORY|failed to allocate", re.IGNORECASE)


class StepError(RuntimeError):
    """Raised when TensorFlow fails in a call of the compiled loop that started at step `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class EvaluationError(RuntimeError):
    """Raised when TensorFlow fails in the evaluation of a split with `examples` examples."""

    def __init__(self, message: str, examples: int) -> None:
        super().__init__(message)
        self.examples = examples


class OutOfMemoryError(RuntimeError):
    """Raised when a device has too little memory; the message says what to reduce."""


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Raised when a signal, or the caller, stops a benchmark, verification or tuning early."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Returns whether an error, or one that it was raised from, is TensorFlow's lack of memory.

    A disk without space, which TensorFlow reports by the same class of errors, does not count.
    """
    while error is not None:
        if type(error).__module__.startswith("tensorflow.") and _MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False
