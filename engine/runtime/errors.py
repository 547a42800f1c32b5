"""Exceptions that the command handles; imports no TensorFlow, so that it can be imported early."""

from __future__ import annotations


class StepError(RuntimeError):
    """Raised when TensorFlow fails in a call of the loop, after `step` steps of the run."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Raised when a signal stops a measurement or a verification."""
