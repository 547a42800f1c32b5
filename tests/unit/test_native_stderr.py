"""Standard error of native code is captured, and shown if an error requires it."""

from __future__ import annotations

import os

import pytest

from engine.runtime.native_stderr import capture_stderr


def test_captures_file_descriptor(capfd: pytest.CaptureFixture[str]):
    with capture_stderr() as written:
        os.write(2, b"error: from C++\n")
        written.seek(0)
        assert written.read() == b"error: from C++\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize("shown", [True, False])
def test_shows_output(capfd: pytest.CaptureFixture[str], shown: bool):
    with pytest.raises(OSError), capture_stderr(shown):
        os.write(2, b"why\n")
        raise OSError
    with pytest.raises(KeyboardInterrupt), capture_stderr(shown):
        os.write(2, b"not this\n")
        raise KeyboardInterrupt
    assert capfd.readouterr().err == "why\n" * shown
