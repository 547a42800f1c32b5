"""The order in which a run writes its files."""

from __future__ import annotations

import pytest

from engine.assembly import run_directory
from engine.config import flags
from engine.distributed.cluster import Cluster
from engine.runtime.startup import Startup
from engine.trainer import command


class Killed(BaseException):
    """Exception that simulates a kill."""


def test_options_before_checkpoint(tmp_path, cache_dir, monkeypatch):
    def killed(config):
        raise Killed

    monkeypatch.setattr(run_directory, "write_options", killed)
    config = flags.from_values(
        {"run_dir": str(tmp_path / "run"), "cache_dir": str(cache_dir), "model": "logistic"}
    )
    with Cluster(config.devices, {}) as company, pytest.raises(Killed):
        command.train(config, None, Startup(), company)
    assert not list(tmp_path.rglob("*.npz"))
