"""The final answer of a contender, and its losses in a check; standard library only."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import Any


def final_of(loss: float | None) -> dict[str, Any]:
    """Returns the last loss, or None, and the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"loss": loss, "peak_mb": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)}


def checked(
    take: Callable[[int], Any], loss: Callable[[], float], steps: int, parameters: int
) -> None:
    """Prints the number of parameters and the loss of each of the first steps, as JSON.

    Args:
      take: trains a number of steps.
      loss: returns the loss of the last step, before its update.
      steps: number of steps.
      parameters: number of trainable parameters.
    """
    losses = []
    for _ in range(steps):
        take(1)
        losses.append(loss())
    print(json.dumps({"parameters": parameters, "losses": losses}), flush=True)
