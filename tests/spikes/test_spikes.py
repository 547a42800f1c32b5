"""Short form of `python -m tests.spikes`: one trial on the embedded digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spikes.trial import LOUD, SHUFFLED, Outcome, quickstart, run, strike

TRIAL = quickstart(seed=0, epochs=60)


@pytest.fixture(scope="module")
def common(cache_dir: str) -> list[str]:
    return [f"--cache_dir={cache_dir}"]


@pytest.fixture(scope="module")
def sound(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(TRIAL, tmp_path_factory.mktemp("sound") / "run", common)


def test_sound_run_skips_nothing(sound: Outcome):
    assert (sound.left_out, sound.error) == ([], "")
    assert sound.losses.shape == (1260,) and sound.losses[-64:].max() < 0.1


@pytest.mark.parametrize("kind", [LOUD, SHUFFLED])
def test_faulty_step_is_skipped(sound: Outcome, common: list[str], tmp_path: Path, kind: str):
    """Only the faulty step is skipped."""
    struck = strike(TRIAL, sound, tmp_path, common, seed=0, kind=kind)
    assert struck.fault.kind == kind and struck.passed, struck
