"""A start: what it takes, and importing TensorFlow without its noise.

TensorFlow's C++ side writes to the file descriptor of standard error while it is imported, before
its log level is read: five lines that say nothing to a user, and that would drown the one line
which an error is. `TF_CPP_MIN_LOG_LEVEL`, where the user sets it, leaves all of them on.

At its end TensorFlow imports Keras, if it is there, and Keras imports scikit-learn: two fifths of
the whole import, for what the engine never uses. Both are imported when somebody asks for them.
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

from engine.native_output import held_back


class Startup:
    """Takes the time from a process's launch to its first step apart.

    seconds: of each part so far, in the order in which they ended first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic() - _age()

    def ended(self, part: str, *, of_which: tuple[str, float] | None = None) -> None:
        """All since the last end was this part; some of its seconds may belong to another."""
        now = time.monotonic()
        spent, self._last = now - self._last, now
        if of_which is not None:
            inner, seconds = of_which
            self.seconds[inner] = self.seconds.get(inner, 0.0) + seconds
            spent -= seconds
        self.seconds[part] = self.seconds.get(part, 0.0) + spent


def after_import(seconds: Mapping[str, float]) -> float:
    """Seconds of those parts of a start that come after TensorFlow's import."""
    return sum(spent for part, spent in seconds.items() if part not in ("python", "tensorflow"))


def _age() -> float:
    """Seconds since this process was launched; 0 where the system does not say."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat:
            launched = int(stat.read().rpartition(")")[2].split()[19])  # proc(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - launched / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def import_tensorflow() -> None:
    """Imports TensorFlow quietly, and without Keras."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        with _without_keras():
            importlib.import_module("tensorflow")
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with held_back(shown_on_error=True), _without_keras():
        tensorflow = importlib.import_module("tensorflow")
    tensorflow.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", module="tensorflow_datasets")


@contextmanager
def _without_keras() -> Iterator[None]:
    """Within it Keras cannot be imported, as where it is not installed, unless it has been."""
    hidden = [name for name in ("keras", "tf_keras") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
