"""L5: everything that must survive is in the one state."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpoint import Checkpoints
from tests.harness import pictures, relative_difference, same_bits, training


def made(replicas: int = 1, optimizer: str = "adam"):
    images, labels = pictures(30)
    return training(images, labels, replicas=replicas, optimizer=optimizer)


def values(run) -> list[np.ndarray]:
    return [variable.numpy() for variable in run.state.variables]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_run_restored_at_any_step_ends_with_the_same_bits(tmp_path, optimizer, stop):
    untouched = made(optimizer=optimizer).take(11)
    stopped = made(optimizer=optimizer).take(stop)
    Checkpoints(str(tmp_path), stopped.state, keep=2).save()
    resumed = made(optimizer=optimizer)
    checkpoints = Checkpoints(str(tmp_path), resumed.state, keep=2)
    checkpoints.restore(checkpoints.newest)
    resumed.take(11 - stop)
    assert same_bits(untouched.weights(), resumed.weights())
    assert int(resumed.state.step) == 11
    assert same_bits(values(untouched), values(resumed))


def test_every_variable_of_the_state_is_in_its_checkpoint(tmp_path):
    state = made().take(2).state
    path = Checkpoints(str(tmp_path), state, keep=2).save()
    saved = {name for name, _ in tf.train.list_variables(path)}
    values = [name for name in saved if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    counters = ("save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")
    assert len([n for n in values if not n.startswith(counters)]) == len(state.variables)


def test_every_variable_that_a_step_reads_is_in_the_state():
    run = made().take(1)
    function = run.loop._compiled.get_concrete_function(
        tf.constant(1, tf.int64), run.feed.open(0, 1)
    )
    known = {id(variable) for variable in run.state.variables}
    strangers = [v.name for v in function.graph.variables if id(v) not in known]
    assert not strangers


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_a_run_saved_on_n_replicas_continues_on_m(tmp_path, before, after):
    untouched = made(before).take(12)
    stopped = made(before).take(5)
    Checkpoints(str(tmp_path), stopped.state, keep=2).save()
    resumed = made(after)
    checkpoints = Checkpoints(str(tmp_path), resumed.state, keep=2)
    checkpoints.restore(checkpoints.newest)
    assert same_bits(stopped.weights(), resumed.weights())
    assert relative_difference(untouched.weights(), resumed.take(7).weights()) < 1e-4


def test_the_weights_alone_can_be_restored_and_leave_the_rest(tmp_path):
    saved = made().take(4)
    path = Checkpoints(str(tmp_path), saved.state, keep=2).save()
    other = made().take(6)
    Checkpoints(str(tmp_path / "other"), other.state, keep=2).restore_model(path)
    assert same_bits(saved.weights(), other.weights())
    assert int(other.state.step) == 6


def test_the_best_checkpoint_is_kept_apart_and_the_newest_are_counted(tmp_path):
    run = made()
    checkpoints = Checkpoints(str(tmp_path), run.state, keep=2)
    for step in range(5):
        run.take(1)
        checkpoints.save()
        if step == 1:
            checkpoints.save_best()
    assert len(list((tmp_path / "checkpoints").glob("*.index"))) == 2
    checkpoints.restore(checkpoints.best)
    assert int(run.state.step) == 2
    checkpoints.restore(checkpoints.newest)
    assert int(run.state.step) == 5


def test_two_checkpoints_of_one_step_do_not_share_a_file(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), made().take(1).state, keep=2)
    assert checkpoints.save() != checkpoints.save()


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    run = made().take(1)
    path = Checkpoints(str(tmp_path), run.state, keep=2).save()
    data = next((tmp_path / "checkpoints").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(OSError, match="cannot load checkpoint"):
        Checkpoints(str(tmp_path), run.state, keep=2).restore(path)
