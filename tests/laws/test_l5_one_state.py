"""L5: everything that must survive is in the one state."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from engine.config import OPTIMIZERS
from engine.keeping import archive
from engine.keeping.catalogue import read
from engine.keeping.checkpoints import Checkpoints
from engine.keeping.restorer import Restorer, restore_weights
from engine.numerics.precision import LossScale
from pipelines import identity_of, open_source
from tests.choices import choices
from tests.harness import pictures, same_bits, training


def made(optimizer: str = "adam"):
    """With all that a step can keep: slots, averages, a loss scale that grows every other step."""
    return training(
        *pictures(30),
        optimizer=optimizer,
        ema=0.9,
        make_loss_scale=lambda: LossScale(initial=2.0, growth_steps=2),
    )


def values(run) -> list[np.ndarray]:
    return [variable.numpy() for variable in run.state.variables]


@functools.cache
def untouched(optimizer: str) -> list[np.ndarray]:
    return values(made(optimizer=optimizer).take(11))


@pytest.mark.parametrize(("optimizer", "stop"), choices(OPTIMIZERS, [3, 4, 7]))
def test_a_run_restored_at_any_step_ends_with_the_same_bits(tmp_path, optimizer, stop):
    stopped = made(optimizer=optimizer).take(stop)
    Checkpoints(str(tmp_path), stopped.state, keep=2).save_now()
    resumed = made(optimizer=optimizer)
    Restorer(str(tmp_path), resumed.state).newest()
    resumed.take(11 - stop)
    assert int(resumed.state.step) == 11
    assert same_bits(untouched(optimizer), values(resumed))


def test_every_variable_of_the_state_is_in_its_checkpoint(tmp_path):
    state = made().take(2).state
    path = Checkpoints(str(tmp_path), state, keep=2).save_now()
    with np.load(path) as saved:
        names = set(saved.files) - {"manifest.json"}
    assert len(names) == len(state.variables)
    assert {"model/layers/0/kernel", "optimizer/means/0", "loss_scale/value"} <= names


def without(path: str, *names: str, **added: np.ndarray) -> None:
    """Takes variables out of a checkpoint, and puts others in."""
    found = archive.read(path)
    arrays = {name: array for name, array in found.arrays.items() if name not in names}
    archive.write(path, found.facts, arrays | added)


def test_checkpoint_of_0_4_0(tmp_path):
    state = made().take(2).state
    state.watch.start.assign(2.5)
    state.watch.excess.assign(0.5)
    state.watch.norms.assign(np.ones(16))
    path = Checkpoints(str(tmp_path), state, keep=2).save_now()
    without(path, "watch/start", "watch/excess", "watch/norms", update_ratio=np.array(0.1))
    for loaded in (state, made().state):
        assert Restorer(str(tmp_path), loaded).newest() == (path, [])
        assert np.isnan(loaded.watch.start) and float(loaded.watch.excess) == 0
        assert np.isnan(loaded.watch.norms).all()
        assert int(loaded.step) == 2


def test_checkpoint_without_anything_else_is_refused(tmp_path):
    state = made().take(2).state
    path = Checkpoints(str(tmp_path), state, keep=2).save_now()
    without(path, "watch/start", "watch/losses")
    with pytest.raises(ValueError, match="has no watch/losses"):
        Restorer(str(tmp_path), state).newest()


def test_a_checkpoint_does_not_grow_with_the_data_and_says_little_of_them(tmp_path, cache_dir):
    """L4: data state is the step. What tells other data from these is beside it."""
    source = open_source("digits", data_dir=None, cache_dir=str(cache_dir))
    data = identity_of(source, str(cache_dir))
    found = []
    for examples in (30, 3000):
        run = training(*pictures(examples), ema=0.9).take(2)
        folder = tmp_path / str(examples)
        path = Checkpoints(str(folder), run.state, keep=2, data=data).save_now()
        found.append(archive.read(path))
    shapes = [{name: array.shape for name, array in each.arrays.items()} for each in found]
    assert shapes[0] == shapes[1]
    assert len(json.dumps(found[1].facts["data"])) + found[1].arrays["step"].nbytes < 1024


def test_every_variable_that_a_step_reads_is_in_the_state():
    run = made().take(1)
    function = run.loop.graph()
    known = {id(variable) for variable in run.state.variables}
    strangers = [v.name for v in function.graph.variables if id(v) not in known]
    assert not strangers


def test_the_weights_alone_can_be_restored_and_leave_the_rest(tmp_path):
    saved = made().take(4)
    path = Checkpoints(str(tmp_path), saved.state, keep=2).save_now()
    other = made().take(6)
    restore_weights(other.state, path, read(path))
    assert same_bits(saved.weights(), other.weights())
    assert int(other.state.step) == 6


def test_the_best_checkpoint_is_kept_apart_and_the_newest_are_counted(tmp_path):
    run = made()
    checkpoints = Checkpoints(str(tmp_path), run.state, keep=2)
    for step in range(5):
        run.take(1)
        if step == 1:
            run.state.best.step.assign(2)
        checkpoints.save_now(best=step == 1)
    assert len(list((tmp_path / "checkpoints").glob("*.npz"))) == 2
    weights = run.weights()
    restorer = Restorer(str(tmp_path), run.state)
    assert restorer.best_number() == 2
    restorer.best_weights(2)
    assert same_bits(run.weights(), made().take(2).weights())
    restorer.newest()
    assert same_bits(run.weights(), weights)
    assert int(run.state.step) == 5


def test_no_checkpoint_is_ever_written_over(tmp_path):
    state = made().take(1).state
    checkpoints = Checkpoints(str(tmp_path), state, keep=9)
    for best in (False, True, False):
        checkpoints.save_now(best=best)
    Checkpoints(str(tmp_path), state, keep=9).save_now()  # after a restart
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def damage(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:1000])


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path):
    run = made()
    checkpoints = Checkpoints(str(tmp_path), run.state, keep=3)
    first = checkpoints.save_now() if run.take(1) else ""
    second = checkpoints.save_now() if run.take(1) else ""
    damage(second)
    restored, problems = Restorer(str(tmp_path), run.state).newest()
    assert restored == first
    assert int(run.state.step) == 1
    assert len(problems) == 1 and second in problems[0] and "\n" not in problems[0]


def test_damaged_checkpoints_alone_are_refused_and_never_taken_for_a_new_run(tmp_path):
    run = made().take(1)
    checkpoints = Checkpoints(str(tmp_path), run.state, keep=2)
    damage(checkpoints.save_now())
    with pytest.raises(OSError, match="cannot load checkpoint"):
        Restorer(str(tmp_path), run.state).newest()
