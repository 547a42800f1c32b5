"""Tests that losses match golden files: bitwise on the same processor, within 1e-5 on others."""

from __future__ import annotations

import pytest

from tests.golden import runs


@pytest.mark.parametrize("name", runs.RUNS)
def test_losses_match_golden(name, request, cache_dir):
    data_dir = request.getfixturevalue("real_data") if name in runs.ON_MNIST else ""
    written = runs.read(name)
    found = runs.losses(name, data_dir=data_dir, cache_dir=cache_dir)
    assert len(found) == runs.STEPS
    # On failure see tests/golden/README.md; `python -m tests.golden.write` updates the files.
    assert runs.drift(found, written["losses"]) <= 1e-5
    if written["machine"] == runs.machine():
        assert found == written["losses"]


@pytest.mark.parametrize("name", runs.RUNS)
def test_golden_options_are_current(name):
    """Each golden file records the options that `tests.golden.runs` defines for its run."""
    assert runs.read(name)["run"] == list(runs.RUNS[name])
