"""Saves that are kept for good are written, whatever else is to be saved."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import DamagedError
from engine.checkpoint.manager import CheckpointManager
from tests.harness import pictures, training


def test_kept_save_is_not_replaced(tmp_path):
    """A later save waits for a queued one that is kept, though both may be replaced otherwise."""
    state, free = training(*pictures(16)).state, threading.Event()
    manager = CheckpointManager(str(tmp_path), state, keep=2)
    manager._background.put(free.wait, replaceable=False)  # the disk is slow
    state.step.assign(10)
    manager.save(kept=True, soon=True)
    state.step.assign(11)
    later = threading.Thread(target=manager.save, kwargs={"soon": True})
    later.start()
    later.join(0.2)
    free.set()
    later.join()
    manager.finish()
    manager.close()
    (path,) = catalog.list_checkpoints(catalog.kept_directory(str(tmp_path)))
    assert catalog.read_metadata(path)["step"] == 10
    assert sorted(catalog.saved_steps(str(tmp_path))) == [10, 11]


def test_intact_copy_of_a_step_is_read(tmp_path):
    """Of two checkpoints of a step, one of which is damaged, the other is read."""
    state = training(*pictures(16)).state
    manager = CheckpointManager(str(tmp_path), state, keep=2)
    state.step.assign(10)
    manager.save(kept=True)
    manager.finish()
    manager.close()
    (path,) = catalog.list_checkpoints(catalog.kept_directory(str(tmp_path)))
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)
    found = catalog.load_step(str(tmp_path), 10)
    assert found is not None and found.path.startswith(catalog.newest_directory(str(tmp_path)))
    Path(found.path).unlink()
    with pytest.raises(DamagedError):
        catalog.load_step(str(tmp_path), 10)
    assert catalog.load_step(str(tmp_path), 11) is None
