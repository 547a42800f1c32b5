"""Provides the fixtures `command` and `warm` of the command-line tests in tests/cli."""

from tests.cli.conftest import command, warm

__all__ = ["command", "warm"]
