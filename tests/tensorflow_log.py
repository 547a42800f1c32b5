"""Removes the lines that TensorFlow 2.20 prints regardless of TF_CPP_MIN_LOG_LEVEL.

TensorFlow 2.21 does not print them: with it, nothing is removed.
"""

from __future__ import annotations

import importlib.metadata
import re

_LOGGED = re.compile(
    r"^(WARNING: All log messages before absl::InitializeLog\(\)"
    r"|[IWE]0000 00:00:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] ).*\n?",
    re.MULTILINE,
)


def without_log(err: str) -> str:
    """Returns a process's standard error without TensorFlow's log lines."""
    old = importlib.metadata.version("tensorflow").startswith("2.20.")
    return _LOGGED.sub("", err) if old else err
