"""Formats benchmark results as JSON with one line for each run."""

from __future__ import annotations

import json
from typing import Any

_DEPTH = 3  # containers that deep are written on one line


def dumps(value: Any, depth: int = 0) -> str:
    """Returns a value as JSON text, with containers nested `_DEPTH` deep or more on one line.

    Args:
      value: any value that `json.dumps` accepts.
      depth: number of containers that contain the value.
    """
    nested = isinstance(value, (dict, list, tuple)) and len(value) > 0
    if not nested or depth >= _DEPTH:
        return json.dumps(value)
    inner, outer = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(k))}: {dumps(v, depth + 1)}" for k, v in value.items()]
        opening, closing = "{", "}"
    else:
        parts, (opening, closing) = [dumps(each, depth + 1) for each in value], "[]"
    joined = ",\n".join(inner + part for part in parts)
    return f"{opening}\n{joined}\n{outer}{closing}"
