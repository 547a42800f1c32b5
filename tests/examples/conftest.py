"""Fixtures: the command, as the tests of the command line have it."""

from tests.cli.conftest import command, warm

__all__ = ["command", "warm"]
