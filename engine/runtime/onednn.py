"""Turns TensorFlow's oneDNN kernels on or off, before TensorFlow is imported.

TensorFlow reads the variable `TF_ENABLE_ONEDNN_OPTS` once, while it is imported. The user's own
value of the variable has precedence. A value that `prepare` sets is removed again after the import,
so that processes that this one starts choose for themselves.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
_VALUES = {"1": "on", "true": "on", "0": "off", "false": "off"}

_prepared: list[str] = []  # the value that `prepare` set; empty: none is set
_calls: list[bool] = []  # of each call of `prepare`, whether it came in time


def of_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Returns what the user's own variable says: "on" or "off"; "" if it is unset or invalid.

    A value that `prepare` set does not count.
    """
    if _prepared and environment is os.environ:
        return ""
    return _VALUES.get(environment.get(VARIABLE, "").lower(), "")


def is_fixed() -> bool:
    """Returns whether TensorFlow is imported, so that oneDNN stays as it is."""
    return "tensorflow" in sys.modules


def prepare(choice: str) -> None:
    """Makes TensorFlow start with oneDNN "on" or "off"; "": as TensorFlow decides.

    Does nothing if TensorFlow is imported already, or if the user's own variable is set.
    """
    _calls.append(not is_fixed())
    if is_fixed() or (not _prepared and os.environ.get(VARIABLE)):
        return
    release()
    if choice:
        os.environ[VARIABLE] = str(int(choice == "on"))
        _prepared.append(choice)


def was_late() -> bool:
    """Returns whether TensorFlow was imported before the first call of `prepare`."""
    return bool(_calls) and not _calls[0]


def release() -> None:
    """Removes the variable that `prepare` set; called when TensorFlow has read it."""
    if _prepared:
        os.environ.pop(VARIABLE, None)
        _prepared.clear()


def state() -> str:
    """Returns whether oneDNN is "on" or "off" in this process; imports TensorFlow."""
    port = importlib.import_module("tensorflow.python.util._pywrap_util_port")
    return "on" if port.IsMklEnabled() else "off"
