"""Startup timings, and an import of TensorFlow without log noise.

While TensorFlow is imported, its C++ code writes five lines to the file descriptor of standard
error, before it reads its log level. They mean nothing to a user, and a one-line error message
would be hard to find among them. If the user sets `TF_CPP_MIN_LOG_LEVEL`, all of them are shown.

TensorFlow's import ends with an import of Keras, if it is installed, and Keras imports
scikit-learn. This takes two fifths of the whole import, and the engine uses neither. Both are
imported only where code imports them explicitly.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import cast

from engine.runtime.native_stderr import capture_stderr


class Startup:
    """Measures the parts of the startup, from the launch of the process to its first step.

    seconds: duration of each part so far, in the order in which the parts first ended.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic() - _age()

    def ended(self, part: str, *, of_which: tuple[str, float] | None = None) -> None:
        """Records the time since the end of the previous part.

        Args:
          part: name of the part that ends now.
          of_which: (other part, seconds of this time that belong to it).
        """
        now = time.monotonic()
        spent, self._last = now - self._last, now
        if of_which is not None:
            inner, seconds = of_which
            self.seconds[inner] = self.seconds.get(inner, 0.0) + seconds
            spent -= seconds
        self.seconds[part] = self.seconds.get(part, 0.0) + spent


def after_import(seconds: Mapping[str, float]) -> float:
    """Returns the seconds of the startup after TensorFlow's import."""
    return sum(spent for part, spent in seconds.items() if part not in ("python", "tensorflow"))


def _age() -> float:
    """Returns the seconds since the process was launched; 0 if the system does not report it."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat:
            start_time = int(stat.read().rpartition(")")[2].split()[19])  # proc(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def import_tensorflow() -> None:
    """Imports TensorFlow without log noise and without Keras."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        with _without_keras():
            importlib.import_module("tensorflow")
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with capture_stderr(shown_on_error=True), _without_keras():
        tensorflow = importlib.import_module("tensorflow")
    tensorflow.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", module="tensorflow_datasets")


@contextmanager
def _without_keras() -> Iterator[None]:
    """Hides Keras in the block, as if it were not installed, unless it is imported already."""
    hidden = [name for name in ("keras", "tf_keras") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
