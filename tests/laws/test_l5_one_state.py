"""Tests of law L5: everything that must survive a restart is in one `TrainState`."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import checkpoint_file
from engine.checkpoint.catalog import read
from engine.checkpoint.manager import CheckpointManager
from engine.checkpoint.restore import Restorer, restore_weights
from engine.models.properties import named_variables
from engine.optim.precision import LossScale
from engine.optim.registry import OPTIMIZERS
from pipelines import data_identity
from pipelines.sources.tfds import open_source
from tests.choices import choices
from tests.harness import pictures, same_bits, training


def made(optimizer: str = "adam"):
    """Returns a training with optimizer slots, an EMA and a dynamic loss scale."""
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


@pytest.mark.parametrize(("optimizer", "stop"), choices(tuple(OPTIMIZERS), [3, 4, 7]))
def test_restore_is_bitwise(tmp_path, optimizer, stop):
    """A run restored after 3, 4 or 7 of 11 steps ends bitwise equal to an uninterrupted run."""
    stopped = made(optimizer=optimizer).take(stop)
    CheckpointManager(str(tmp_path), stopped.state, keep=2).save_and_wait()
    resumed = made(optimizer=optimizer)
    Restorer(str(tmp_path), resumed.state).newest()
    resumed.take(11 - stop)
    assert int(resumed.state.step) == 11
    assert same_bits(untouched(optimizer), values(resumed))


def test_checkpoint_is_complete(tmp_path):
    """A checkpoint contains every variable of the state."""
    state = made().take(2).state
    path = CheckpointManager(str(tmp_path), state, keep=2).save_and_wait()
    with np.load(path) as saved:
        names = set(saved.files) - {"manifest.json"}
    assert len(names) == len(state.variables)
    assert {"model/layers/0/kernel", "optimizer/means/0", "loss_scale/value"} <= names


# Names of groups and variables in checkpoints of 0.4.0, by their current names.
OF_0_4_0 = {
    "bad_steps/tolerated": "watch/bad",
    "bad_steps/skipped": "watch/left_out",
    "bad_steps/reasons": "watch/why",
    "bad_steps/in_a_row": "watch/in_a_row",
    "bad_steps/losses": "watch/losses",
    "last_evaluation_step": "ended",
    "last_logged_step": "written",
    "last_logged_sums": "logged",
    "loss_scale/finite_steps": "loss_scale/good_steps",
    "patience/wait": "patience/waited",
}


def name_of_0_4_0(name: str) -> str:
    """Returns the name that a variable has in a checkpoint of version 0.4.0."""
    group, slash, rest = name.partition("/")
    groups = {"ema": "average", "timing": "times"}
    return OF_0_4_0.get(name, groups.get(group, group) + slash + rest)


def without(path: str, *names: str, **added: np.ndarray) -> None:
    """Rewrites a checkpoint file without the variables `names`, and with the variables `added`."""
    found = checkpoint_file.read(path)
    arrays = {name: array for name, array in found.arrays.items() if name not in names}
    checkpoint_file.write(path, found.facts, arrays | added)


def test_checkpoint_of_0_4_0(tmp_path):
    state = made().take(2).state
    state.bad_steps.initial_loss.assign(2.5)
    state.bad_steps.max_excess.assign(0.5)
    state.bad_steps.norms.assign(np.ones(16))
    path = CheckpointManager(str(tmp_path), state, keep=2).save_and_wait()
    without(
        path,
        "bad_steps/initial_loss",
        "bad_steps/max_excess",
        "bad_steps/norms",
        update_ratio=np.array(0.1),
    )
    new = checkpoint_file.read(path)
    old = {name_of_0_4_0(name): array for name, array in new.arrays.items()}
    for name in ("sums", "logged"):  # loss, accuracy, examples, gradient norms, steps
        old[name] = old[name][[0, 3, 2, 5, 6]]
    assert "times/training" in old and "watch/in_a_row" in old and "bad_steps" not in str(set(old))
    checkpoint_file.write(path, new.facts, old)
    for loaded in (state, made().state):
        assert Restorer(str(tmp_path), loaded).newest() == (path, [])
        saved = {n: v.numpy() for n, v in named_variables(loaded).items() if n in new.arrays}
        np.testing.assert_equal(saved, {n: new.arrays[n] for n in saved})
        assert np.isnan(loaded.bad_steps.initial_loss) and float(loaded.bad_steps.max_excess) == 0
        assert np.isnan(loaded.bad_steps.norms).all()
        assert int(loaded.step) == 2


def test_missing_variable_raises(tmp_path):
    state = made().take(2).state
    path = CheckpointManager(str(tmp_path), state, keep=2).save_and_wait()
    without(path, "bad_steps/initial_loss", "bad_steps/losses")
    with pytest.raises(ValueError, match="has no bad_steps/losses"):
        Restorer(str(tmp_path), state).newest()


def test_checkpoint_size_is_constant(tmp_path, cache_dir):
    """The array shapes of a checkpoint are the same for 30 and for 3,000 examples (law L4)."""
    source = open_source("digits", data_dir=None, cache_dir=str(cache_dir))
    data = data_identity(source, str(cache_dir))
    found = []
    for examples in (30, 3000):
        run = training(*pictures(examples), ema=0.9).take(2)
        folder = tmp_path / str(examples)
        path = CheckpointManager(str(folder), run.state, keep=2, data=data).save_and_wait()
        found.append(checkpoint_file.read(path))
    shapes = [{name: array.shape for name, array in each.arrays.items()} for each in found]
    assert shapes[0] == shapes[1]
    assert len(json.dumps(found[1].facts["data"])) + found[1].arrays["step"].nbytes < 1024


def test_step_reads_only_state():
    """Every variable that the graph of a step uses is in the state."""
    run = made().take(1)
    function = run.loop.graph()
    known = {id(variable) for variable in run.state.variables}
    untracked_variables = [v.name for v in function.graph.variables if id(v) not in known]
    assert not untracked_variables


def test_restore_weights_only(tmp_path):
    """`restore_weights` replaces the weights and leaves the rest of the state unchanged."""
    saved = made().take(4)
    path = CheckpointManager(str(tmp_path), saved.state, keep=2).save_and_wait()
    other = made().take(6)
    restore_weights(other.state, path, read(path))
    assert same_bits(saved.weights(), other.weights())
    assert int(other.state.step) == 6


def test_best_is_kept_separately(tmp_path):
    """The best checkpoint is kept in addition to the newest `keep` checkpoints."""
    run = made()
    checkpoints = CheckpointManager(str(tmp_path), run.state, keep=2)
    for step in range(5):
        run.take(1)
        if step == 1:
            run.state.best.step.assign(2)
        checkpoints.save_and_wait(best=step == 1)
    assert len(list((tmp_path / "checkpoints").glob("*.npz"))) == 2
    weights = run.weights()
    restorer = Restorer(str(tmp_path), run.state)
    assert restorer.best_number() == 2
    restorer.restore_best_weights(2)
    assert same_bits(run.weights(), made().take(2).weights())
    restorer.newest()
    assert same_bits(run.weights(), weights)
    assert int(run.state.step) == 5


def test_no_checkpoint_is_overwritten(tmp_path):
    state = made().take(1).state
    checkpoints = CheckpointManager(str(tmp_path), state, keep=9)
    for best in (False, True, False):
        checkpoints.save_and_wait(best=best)
    CheckpointManager(str(tmp_path), state, keep=9).save_and_wait()  # after a restart
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def damage(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:1000])


def test_damaged_newest_falls_back(tmp_path):
    """A damaged newest checkpoint is reported, and the previous one is restored."""
    run = made()
    checkpoints = CheckpointManager(str(tmp_path), run.state, keep=3)
    first = checkpoints.save_and_wait() if run.take(1) else ""
    second = checkpoints.save_and_wait() if run.take(1) else ""
    damage(second)
    restored, problems = Restorer(str(tmp_path), run.state).newest()
    assert restored == first
    assert int(run.state.step) == 1
    assert len(problems) == 1 and second in problems[0] and "\n" not in problems[0]


def test_all_damaged_raises(tmp_path):
    """If all checkpoints are damaged, the restorer raises OSError."""
    run = made().take(1)
    checkpoints = CheckpointManager(str(tmp_path), run.state, keep=2)
    damage(checkpoints.save_and_wait())
    with pytest.raises(OSError, match="cannot load checkpoint"):
        Restorer(str(tmp_path), run.state).newest()
