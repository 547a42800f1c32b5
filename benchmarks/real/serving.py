"""The final answer of a contender, and its losses in a check; standard library only."""

from __future__ import annotations

import resource
import sys
from typing import Any


def final_of(loss: float) -> dict[str, Any]:
    """Returns the last loss, and the peak of the resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"loss": loss, "peak_mb": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)}
