"""Importing TensorFlow without its noise.

TensorFlow's C++ side writes to the file descriptor of standard error while it is imported, before
its log level is read: five lines that say nothing to a user, and that would drown the one line
which an error is. `TF_CPP_MIN_LOG_LEVEL`, where the user sets it, leaves all of them on.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
import warnings


def import_tensorflow() -> float:
    """Imports TensorFlow quietly.

    Returns:
      The time, on the monotonic clock, at which the import was done: start-up is counted from it.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        importlib.import_module("tensorflow")
        return time.monotonic()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            tensorflow = importlib.import_module("tensorflow")
        except Exception:  # not an interruption: that needs no explanation
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    tensorflow.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", module="tensorflow_datasets")
    return time.monotonic()
