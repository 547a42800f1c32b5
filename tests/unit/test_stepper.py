"""`Stepper`: a bad step is counted and does not end the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.assembly.parts import Parts, assemble
from engine.benchmark.stepper import Stepper
from engine.config import flags
from tests import measured

EPOCH = 14  # steps, of 135 examples, one with a nan


def stepper_of(parts: Parts, *, judged: bool = True) -> Stepper:
    state = parts.state
    start = [(variable, variable.numpy()) for variable in state.variables]
    return Stepper(parts, parts.loop, lambda: False, start, judged=judged)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return measured.prepared(tmp_path_factory.mktemp("data"))


def on_bad_data(dataset: str, run_dir: Path, cache_dir: str, *options: str) -> Parts:
    own = f"--dataset={dataset}", "--model=logistic", "--global_batch_size=10"
    places = f"--run_dir={run_dir}", f"--cache_dir={cache_dir}"
    return assemble(flags.parse([*own, *places, "--validation_split=0.1", *options]))


def test_counts_skipped_steps(dataset, tmp_path, cache_dir):
    run_dir = tmp_path / "run"
    parts = on_bad_data(dataset, run_dir, cache_dir, "--epochs=3", "--leave_out=1")
    stepper = stepper_of(parts)
    stepper.take(3 * EPOCH)
    assert stepper.left_out == 3 and int(parts.state.step) == 3 * EPOCH
    assert int(parts.state.bad_steps.tolerated) == 0  # none was tolerated
    assert int(parts.state.updates) == 3 * EPOCH - 3 - 1
    assert not run_dir.exists()


def test_too_many_skipped_steps(dataset, tmp_path, cache_dir):
    options = "--epochs=3", "--most_left_out=1"
    parts = on_bad_data(dataset, tmp_path, cache_dir, *options)
    with pytest.raises(RuntimeError, match=r"not finite.*--most_left_out=1 allows"):
        stepper_of(parts).take(2 * EPOCH)
    unjudged = stepper_of(parts, judged=False)
    unjudged.restart()
    unjudged.take(2 * EPOCH)


def test_long_block_may_skip_more(dataset, tmp_path, cache_dir):
    options = "--epochs=1", "--most_left_out=1"
    stepper = stepper_of(on_bad_data(dataset, tmp_path, cache_dir, *options))
    stepper.take(3 * EPOCH)
    assert stepper.left_out == 3


def test_first_losses_are_no_spikes(cache_dir):
    """Losses after a restart, far above the last losses before it, are no spikes."""
    options = "--model=logistic", "--global_batch_size=431", "--learning_rate=0.05", "--spike=20"
    parts = assemble(flags.parse([*options, f"--cache_dir={cache_dir}"]))
    stepper = stepper_of(parts)
    for _ in range(2):
        stepper.restart()
        stepper.take(150)
    assert stepper.left_out == 0
    for variable in parts.model.variables:
        variable.assign(-30 * variable)  # `restart` would not do this
    stepper.take(30)
    assert 0 < stepper.left_out < 5  # the weights are reset, and with them the losses compared
