"""What a start takes, part by part."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import startup
from engine.startup import Startup, after_import


class Clock:
    """Time as a test has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(startup, "_age", lambda: 3.0)


def test_every_second_since_the_launch_is_in_one_part(monkeypatch):
    clock = Clock(monkeypatch)
    begun = Startup()
    for part, seconds in (("python", 1), ("data", 4), ("network", 2), ("data", 8)):
        clock.now += seconds
        begun.ended(part)
    assert begun.seconds == {"python": 3 + 1, "data": 4 + 8, "network": 2}


def test_a_part_of_a_part_is_not_counted_twice(monkeypatch):
    clock = Clock(monkeypatch)
    begun = Startup()
    clock.now += 5
    begun.ended("step", of_which=("trace", 2.0))
    assert begun.seconds == {"trace": 2.0, "step": 3 + 5 - 2}


def test_what_comes_before_the_end_of_the_import_is_not_the_engines():
    seconds = {"python": 1.0, "tensorflow": 2.0, "data": 4.0, "step": 8.0}
    assert after_import(seconds) == 12.0


def test_a_process_knows_its_age():
    age = startup._age()
    time.sleep(0.05)
    assert 0 < age < startup._age()


def test_keras_is_imported_when_it_is_asked_for_and_not_before():
    code = """
from engine.startup import import_tensorflow
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
