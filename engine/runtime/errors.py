"""Exceptions of failed steps and of interrupted work, importable before TensorFlow."""

from __future__ import annotations


class StepError(RuntimeError):
    """Raised when TensorFlow fails in a call of the compiled loop that started at step `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Raised when a signal, or the caller, stops a benchmark, verification or tuning early."""
