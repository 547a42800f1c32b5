"""Tests of `tests.versions`, which runs the README's commands with other Python versions."""

from __future__ import annotations

from pathlib import Path

from tests import versions

README = Path(__file__).parents[2] / "README.md"


def test_finds_commands_of_readme():
    found = versions.commands(README.read_text())
    assert set(found) == {"start", "tests"}
    assert "quickstart.flags" in found["start"] and "pytest" in found["tests"]


def test_adapts_commands():
    """Only the interpreter and the version of TensorFlow are replaced in a command."""
    for command in versions.commands(README.read_text()).values():
        other = versions.adapted(command, "/opt/python", "2.20")
        assert other.startswith("/opt/python -m venv --without-pip .venv && ")
        assert "'tensorflow~=2.20.0'" in other and "constraints" not in other
        assert other.rpartition("&&")[2] == command.rpartition("&&")[2]
        same = versions.adapted(command, "python3", "")
        assert same.split(" -m pip ")[1] == command.split(" -m pip ")[1]
