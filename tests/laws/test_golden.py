"""Golden losses: a run is to the bit what it was, where bits can be compared."""

from __future__ import annotations

import pytest

from tests.golden import runs


@pytest.mark.parametrize("name", runs.RUNS)
def test_fifty_losses_are_those_that_were_written(name, request, cache_dir):
    data_dir = request.getfixturevalue("real_data") if name in runs.ON_MNIST else ""
    written = runs.read(name)
    found = runs.losses(name, data_dir=data_dir, cache_dir=cache_dir)
    assert len(found) == runs.STEPS
    # What moved them: see tests/golden/README.md. `python -m tests.golden.write` writes them anew.
    assert runs.drift(found, written["losses"]) <= 1e-5
    if written["machine"] == runs.machine():
        assert found == written["losses"]


@pytest.mark.parametrize("name", runs.RUNS)
def test_what_was_written_is_of_the_run_that_is_run(name):
    assert runs.read(name)["run"] == list(runs.RUNS[name])
