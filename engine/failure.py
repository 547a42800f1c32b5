"""What a failed step raises; without TensorFlow, so that the command can name it."""

from __future__ import annotations


class StepError(RuntimeError):
    """TensorFlow failed in a call of the loop.

    Args:
      message: one line.
      step: the number of steps that the run had taken before the call.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
