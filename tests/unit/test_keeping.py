"""Checkpoints that are kept: those of some steps for good, and the N best ones."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import DamagedError
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.migration import migrated
from engine.checkpoint.restore import Restorer
from engine.core.early_stopping import Monitor, MonitoredMetric
from engine.core.options import MAX_KEEP_BEST
from engine.core.state import BadStepState, BestState
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


def test_each_file_is_read_once(tmp_path, monkeypatch):
    """A save does not read the files of earlier ones again, however many are kept."""
    state, read = training(*pictures(16)).state, Counter()
    metadata = catalog.read_metadata

    def counted(path):
        read[path] += 1
        return metadata(path)

    manager = CheckpointManager(str(tmp_path), state, keep=2)
    for step in range(12):
        state.step.assign(step)
        if step == 2:  # the files before are those of an earlier process
            monkeypatch.setattr(catalog, "read_metadata", counted)
            manager = CheckpointManager(str(tmp_path), state, keep=2)
        state.best.step.assign(step)
        state.best.steps.assign([step, step - 1, *[-1] * (MAX_KEEP_BEST - 2)])
        manager.save(best=True, kept=True)
        manager.finish()
    manager.close()
    assert len(catalog.list_checkpoints(catalog.kept_directory(str(tmp_path)))) == 12
    assert set(read.values()) == {1} and len(read) >= 20


MONITOR = Monitor(MonitoredMetric("validation", "accuracy"), 0.0, -1, higher_is_better=True)


def ranking(best: BestState) -> list[tuple[float, int]]:
    pairs = zip(best.values.numpy().tolist(), best.steps.numpy().tolist(), strict=True)
    found = list(pairs)
    used = [pair for pair in found if pair[1] >= 0]
    assert found[len(used) :] == [pair for pair in found if pair[1] < 0]  # at the end
    return used


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.sampled_from([0.25, 0.5, 0.5, 0.75, float("nan"), float("inf")]), max_size=12),
    st.integers(1, 5),
)
def test_ranking(values: list[float], keep: int):
    """The ranking has the best evaluations; of equal ones, the earlier are better."""
    best, by_step = BestState(), {10 * i: value for i, value in enumerate(values)}
    for step, value in by_step.items():
        is_best = MONITOR.is_best(value, step, best)
        place = MONITOR.rank(value, step, best, keep)
        so_far = [(v, s) for s, v in by_step.items() if s <= step and not np.isnan(v)]
        wanted = sorted(so_far, key=lambda pair: (-pair[0], pair[1]))[:keep]
        assert ranking(best) == wanted
        assert place == (wanted.index((value, step)) + 1 if (value, step) in wanted else 0)
        assert is_best == (place == 1)


def test_other_length_of_ranking():
    """A shorter ranking loses its end; a longer one is filled by the evaluations to come."""
    best = BestState()
    for step, value in enumerate([0.1, 0.2, 0.3, 0.4]):
        MONITOR.rank(value, step, best, 3)
    assert [step for _, step in ranking(best)] == [3, 2, 1]
    assert MONITOR.rank(float("nan"), 4, best, 2) == 0
    assert [step for _, step in ranking(best)] == [3, 2]
    assert MONITOR.rank(0.15, 5, best, 4) == 3  # the evaluation of step 1 is forgotten
    assert [step for _, step in ranking(best)] == [3, 2, 5]


class State(tf.Module):
    """A small training state: a weight, the step and the best evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tf.Variable(0.0)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best = BestState()
        self.bad_steps = BadStepState()  # which every checkpoint holds


class Killed(BaseException):
    """Ends a simulated process."""


class Saver:
    """Saves a state at steps with given values of the monitored metric, in new processes too."""

    def __init__(self, run_dir: Path, keep_best: int) -> None:
        self.run_dir, self.keep_best = run_dir, keep_best
        self.restart()

    def restart(self) -> int:
        """Starts again from the newest checkpoint, as after a kill; returns its step."""
        self.state = State()
        self.manager = CheckpointManager(str(self.run_dir), self.state, keep=2)
        path, _ = Restorer(str(self.run_dir), self.state).newest()
        if path is not None:
            self.manager.tidy(kept=False)
        return int(self.state.step)

    def evaluate(self, step: int, value: float, *, killed: bool = False) -> None:
        """Evaluates at a step and saves; `killed`: before checkpoints/ is written."""
        self.state.step.assign(step)
        self.state.model.assign(step / 7)
        MONITOR.is_best(value, step, self.state.best)
        place = MONITOR.rank(value, step, self.state.best, self.keep_best)
        self.manager.save_and_wait(best=bool(place))
        if killed:
            Path(catalog.newest_checkpoint(str(self.run_dir)) or "").unlink()

    def best_steps(self) -> list[int]:
        paths = catalog.list_checkpoints(catalog.best_directory(str(self.run_dir)))
        return sorted(catalog.read_metadata(path)["step"] for path in paths)

    def bits(self) -> list[tuple[str, int, dict[str, bytes]]]:
        """Returns (folder, step, {variable: bytes}) of all checkpoints, in order of the steps."""
        found = []
        for directory in catalog.directories(str(self.run_dir)):
            for contents in map(catalog.read, catalog.list_checkpoints(directory)):
                arrays = {name: array.tobytes() for name, array in contents.arrays.items()}
                found.append((Path(directory).name, contents.facts["step"], arrays))
        return sorted(found, key=lambda each: each[:2])


def test_best_are_kept(tmp_path):
    run = Saver(tmp_path, 3)
    for step, value in enumerate([0.5, 0.2, 0.5, 0.4, 0.6, 0.1, 0.5]):
        run.evaluate(step, value)
    assert run.best_steps() == [0, 2, 4]
    found = catalog.load_newest(str(tmp_path))
    assert found.best_steps == [4, 0, 2] and found.best_step == 4
    assert catalog.load_best(str(tmp_path)).step == 4


def test_best_after_a_kill(tmp_path):
    """A best checkpoint that a killed run had saved is saved again, and is there once."""
    run = Saver(tmp_path, 2)
    for step, value in enumerate([0.1, 0.2, 0.3]):
        run.evaluate(step, value)
    run.evaluate(3, 0.25, killed=True)  # which has pruned step 1 already
    assert run.restart() == 2
    run.manager.save_and_wait()
    assert run.best_steps() == [2, 3]  # the run will reach step 3 again
    run.evaluate(3, 0.25)
    run.evaluate(4, 0.1)
    assert run.best_steps() == [2, 3]
    assert catalog.load_newest(str(tmp_path)).best_steps == [2, 3]


def test_kill_at_any_file_operation(tmp_path, monkeypatch):
    """Wherever a process is killed, the resumed run keeps the same checkpoints at its end."""
    values = [0.3, 0.1, 0.4, 0.2, 0.4, 0.5, 0.35]
    calls, kill_at = 0, -1

    def counted(function):
        def called(*given):
            nonlocal calls
            calls += 1
            if 0 <= kill_at < calls:
                raise Killed
            return function(*given)

        return called

    for name in ("replace", "unlink", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))

    def trained(run_dir: Path) -> Saver:
        """Trains to the end, from the newest checkpoint if there is one."""
        run = Saver(run_dir, 3)
        started = catalog.newest_checkpoint(str(run_dir)) is not None
        for step in range(int(run.state.step) + started, len(values)):
            run.evaluate(step, values[step])
        return run

    expected = trained(tmp_path / "alone")
    assert expected.best_steps() == [2, 4, 5]
    operations = calls
    assert operations > 30
    for killed in range(operations):
        run_dir, calls, kill_at = tmp_path / str(killed), 0, killed
        with pytest.raises(Killed):
            trained(run_dir)
        kill_at = -1
        assert trained(run_dir).bits() == expected.bits(), killed


@pytest.mark.parametrize(("keep", "steps"), [(1, [4]), (2, [3, 4]), (5, [2, 3, 4, 5])])
def test_other_number_on_a_resume(tmp_path, keep, steps):
    run = Saver(tmp_path, 3)
    for step, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.5]):
        run.evaluate(step, value)
    run.keep_best = keep
    run.restart()
    run.manager.save_and_wait()
    assert run.best_steps() == [2, 3, 4]  # until the next evaluation
    run.evaluate(5, 0.15)
    assert run.best_steps() == steps


def test_checkpoint_without_ranking():
    """A checkpoint of an older version has one best evaluation, which is the ranking."""
    arrays = {"best/step": np.array(40), "best/value": np.array(0.5)}
    found = migrated(arrays)
    assert found["best/steps"].tolist() == [40] + [-1] * (MAX_KEEP_BEST - 1)
    assert found["best/steps"].dtype == np.int64
    assert found["best/values"][0] == 0.5 and np.isnan(found["best/values"][1:]).all()
    again = migrated(found)
    assert all(again[name] is found[name] for name in found)
