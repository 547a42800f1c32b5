"""Timing of the startup, and the import of TensorFlow without its log messages.

While TensorFlow is imported, its C++ code writes five lines to standard error before it reads its
log level. TensorFlow's import also imports Keras, which imports scikit-learn: two fifths of the
import time, although the engine needs Keras only to train Keras models.
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

from engine.runtime import onednn
from engine.runtime.graph_optimizer import keep_order_of_additions
from engine.runtime.native_stderr import capture_stderr


class Startup:
    """Timer of the parts of the startup, from process launch to the first step.

    Attributes:
      seconds: seconds of each part so far, by name, in the order in which they were first recorded.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._launch = self._last = time.monotonic() - _age()

    def ended(self, part: str) -> None:
        """Adds the time since the end of the previous part to the duration of `part`."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def elapsed(self) -> float:
        """Returns the seconds since process launch."""
        return time.monotonic() - self._launch


def after_import(seconds: Mapping[str, float]) -> float:
    """Returns the duration in seconds of the startup after TensorFlow's import.

    `seconds` is `Startup.seconds`.
    """
    return sum(spent for part, spent in seconds.items() if part not in ("python", "tensorflow"))


def _age() -> float:
    """Returns the age of the process in seconds; 0 if the system does not report it."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat:
            start_time = int(stat.read().rpartition(")")[2].split()[19])  # proc(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def import_tensorflow() -> None:
    """Imports TensorFlow without Keras; silences the log unless TF_CPP_MIN_LOG_LEVEL is set.

    TensorFlow starts with oneDNN on or off as `onednn.prepare` was told.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        with _without_keras():
            _import()
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with capture_stderr(shown_on_error=True), _without_keras():
        tensorflow = _import()
    tensorflow.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", module="tensorflow_datasets")


def _import() -> ModuleType:
    tensorflow = importlib.import_module("tensorflow")
    onednn.state()  # reads the variable now, at the latest
    onednn.release()
    keep_order_of_additions()
    return tensorflow


@contextmanager
def _without_keras() -> Iterator[None]:
    """Makes imports of Keras fail in the block, unless it is imported already."""
    hidden = [name for name in ("keras", "tf_keras") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
