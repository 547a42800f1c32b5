"""The command, with a home and a cache of this session's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command import Command, Warm


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Command:
    """Tapeline's command, as a process."""
    return Command(tmp_path_factory.mktemp("home"), cache_dir)


@pytest.fixture(scope="session")
def warm(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The same, without the seconds that TensorFlow's import takes."""
    with command.warmed(tmp_path_factory.mktemp("warm")) as warm:
        yield warm
