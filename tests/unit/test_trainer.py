"""The order in which a run happens, where nothing else shows it."""

from __future__ import annotations

import pytest

from engine import flags
from engine.keeping import run_directory
from engine.startup import Startup
from engine.training import trainer
from engine.workers.company import Company


class Killed(BaseException):
    """Stands for a kill."""


def test_no_checkpoint_is_there_before_the_options_that_it_was_made_with(
    tmp_path, cache_dir, monkeypatch
):
    def killed(config):
        raise Killed

    monkeypatch.setattr(run_directory, "write_options", killed)
    config = flags.from_values(
        {"run_dir": str(tmp_path / "run"), "cache_dir": str(cache_dir), "model": "logistic"}
    )
    with Company(config, {}) as company, pytest.raises(Killed):
        trainer.train(config, None, Startup(), company)
    assert not list(tmp_path.rglob("*.npz"))
