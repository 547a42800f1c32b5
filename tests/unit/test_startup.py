"""Startup timings by part."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runtime import startup
from engine.runtime.startup import Startup, after_import


class Clock:
    """A fake monotonic clock, whose time the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(startup, "_age", lambda: 3.0)


def test_parts_cover_startup(monkeypatch):
    """All seconds since the launch are attributed to exactly one part each."""
    clock = Clock(monkeypatch)
    begun = Startup()
    for part, seconds in (("python", 1), ("data", 4), ("network", 2), ("data", 8)):
        clock.now += seconds
        begun.ended(part)
    assert begun.seconds == {"python": 3 + 1, "data": 4 + 8, "network": 2}


def test_seconds_after_import():
    seconds = {"python": 1.0, "tensorflow": 2.0, "data": 4.0, "step": 8.0}
    assert after_import(seconds) == 12.0


def test_process_age():
    age = startup._age()
    time.sleep(0.05)
    assert 0 < age < startup._age()


def test_keras_imported_lazily():
    code = """
from engine.runtime.startup import import_tensorflow
import_tensorflow()
import sys
import tensorflow as tf
import tensorflow_datasets
assert not {"keras", "sklearn"} & {name.split(".")[0] for name in sys.modules}
import keras
assert tf.keras.layers.Dense is keras.layers.Dense
assert tf.keras.optimizers.Adam is keras.optimizers.Adam
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
