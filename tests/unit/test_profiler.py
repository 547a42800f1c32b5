"""The profiler records the requested steps, at whose bounds graph calls end."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from engine.core.log_points import NEVER
from engine.logging.profiler import Profiler


class Recorded:
    """Replaces TensorFlow's profiler, and records its calls."""

    def __init__(self, monkeypatch) -> None:
        self.told: list[str] = []
        profiler = tf.profiler.experimental
        monkeypatch.setattr(profiler, "start", lambda place: self.told.append(f"start {place}"))
        monkeypatch.setattr(profiler, "stop", lambda: self.told.append("stop"))


def test_calls_end_at_recording_bounds(monkeypatch, tmp_path: Path):
    recorded, profiler = Recorded(monkeypatch), Profiler((5, 9), str(tmp_path))
    assert [profiler.until(step) for step in (0, 4, 5, 8, 9)] == [5, 1, 4, 1, NEVER]
    assert profiler.at(0) == "" and recorded.told == []
    assert profiler.at(5) == "" and len(recorded.told) == 1
    assert profiler.at(7) == "" and len(recorded.told) == 1
    assert "steps 5 to 9" in profiler.at(9) and recorded.told[1:] == ["stop"]
    assert profiler.at(10) == "" and profiler.stop() == "" and len(recorded.told) == 2


def test_stop_while_recording(monkeypatch, tmp_path: Path):
    recorded, profiler = Recorded(monkeypatch), Profiler((5, 90), str(tmp_path))
    profiler.at(6)
    assert "profile" in profiler.stop() and recorded.told[1:] == ["stop"]


def test_profiler_fails(monkeypatch, tmp_path: Path):
    """An error of TensorFlow's profiler, such as another one that runs, is one line."""

    def fails(*_: object) -> None:
        raise tf.errors.AlreadyExistsError(None, None, "Another profiler is running.")

    profiler = Profiler((5, 9), str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(tf.profiler.experimental, "start", fails)
        with pytest.raises(OSError, match=r"^cannot write the profile: Another profiler"):
            profiler.at(5)
    assert profiler.stop() == ""  # it did not start
    Recorded(monkeypatch)
    profiler.at(5)
    monkeypatch.setattr(tf.profiler.experimental, "stop", fails)
    with pytest.raises(OSError, match=r"^cannot write the profile: Another profiler"):
        profiler.at(9)


def test_records_nothing(monkeypatch, tmp_path: Path):
    """Without steps, or on a worker that does not write, nothing is recorded."""
    recorded = Recorded(monkeypatch)
    for profiler in (Profiler((0, 0), str(tmp_path)), Profiler((0, 9), str(tmp_path), False)):
        assert profiler.until(0) == NEVER and profiler.at(0) == "" and profiler.stop() == ""
    assert recorded.told == []
