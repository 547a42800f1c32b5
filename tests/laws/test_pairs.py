"""Tests of the sampler in `tests.laws.pairs` and of its classification of results."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import compatibility, flags
from tests.laws import pairs

REPOSITORY = Path(__file__).resolve().parents[2]


def test_configurations_cover_most_pairs():
    chosen = list(itertools.islice(pairs.sampled(0), 10))
    missing = pairs.all_pairs()
    every = len(missing)
    for choice in chosen:
        options = flags.parse(pairs.options_of(choice))
        compatibility.refuse(options)
        compatibility.check_length_options(options, 9)
        missing -= pairs.pairs_of(choice)
    assert len(missing) < 0.4 * every
    assert [*itertools.islice(pairs.sampled(0), 2)] == chosen[:2]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([(2, "error: x")], "refused: error: x"),
        ([(1, "error: x")], "FAILED train 1"),
        ([(0, "done"), (1, "FAIL L7")], "FAILED verify 1"),
        ([(0, "done"), (0, "Traceback\nPASS: 8 laws hold")], "FAILED verify 0"),
        ([(0, "done"), (0, "nothing")], "FAILED verify 0"),
        ([(0, "done"), (0, "PASS: 8 laws hold")], "ok: PASS: 8 laws hold"),
    ],
)
def test_classifies_failures(tmp_path, monkeypatch, ends, words):
    ended = iter([pairs.victim.Ended(*each) for each in ends])
    monkeypatch.setattr(pairs.victim, "run", lambda *_, **__: next(ended))
    found, failure = pairs.tried(3, next(pairs.sampled(0)), tmp_path)
    assert found.startswith(words) and next(ended, None) is None
    assert (failure is not None) == words.startswith("FAILED")


@pytest.mark.full
def test_trained_configuration_passes_verify():
    done = subprocess.run(
        [sys.executable, "-m", "tests.laws.pairs", "--configurations=1", "--seed=1"],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 configurations trained, 0 refused, 0 failed" in done.stdout
