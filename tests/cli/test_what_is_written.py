"""Tests that each mode, except train, writes only the documented files to a run directory."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from engine.config import flags
from engine.tune import choices, command, contest
from engine.tune.choices import Candidate
from tests.cli.command import Run, Warm

# All options that make a training write more than checkpoints.
OPTIONS = (
    "--model=logistic",
    "--epochs=3",
    "--leave_out=3,30",
    "--spike=1000",
    "--profile=10:12",
    "--histograms",
    "--log_every=4",
    "--ema=0.9",
    "--report",
)
# Replaces the run's steps: skipped steps that the run has recorded are not recorded again.
OTHER_STEPS = "--leave_out=1,2,5"
# mode -> its options, and a pattern of its files, which docs/guide/training.md lists
OF_RUNS = {
    "evaluate": ((), r"evaluation/.*"),
    "predict": (("--split=test[:20]",), r"predictions/.*"),
    "export": ((), r"export/.*"),
    "report": ((), r"report\.html|plots/.*|test_predictions\.csv"),
}
OTHERS = {
    "verify": ((), r"verify\.json"),
    "benchmark": (
        ("--benchmark_steps=60", "--benchmark_with=saving,logging,evaluation"),
        r"nothing",
    ),
}


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with `OPTIONS`, which make training write many files."""
    return warm.train(tmp_path_factory.mktemp("written") / "run", *OPTIONS)


def digests(folder: Path) -> dict[str, str]:
    """Returns, by relative path, the SHA-256 of each file, and "directory" for each directory."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        )
        for path in folder.rglob("*")
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Returns the paths that differ, without directories that contain such paths."""
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in paths if after.get(path) != "directory"} | {
        path for path in paths if not any(other.startswith(f"{path}/") for other in paths)
    }


@pytest.mark.parametrize("mode", [*OF_RUNS, *OTHERS])
def test_files_of_mode(warm: Warm, run: Run, tmp_path: Path, mode: str):
    """A mode writes only its documented files, and each mode except benchmark writes some."""
    copied = tmp_path / "run"
    shutil.copytree(run.run_dir, copied)
    options, promised = (OF_RUNS | OTHERS)[mode]
    own = (f"--flagfile={copied / 'config.flags'}", *OPTIONS, OTHER_STEPS) if mode in OTHERS else ()
    before = digests(copied)
    outcome = warm.run(*own, f"--mode={mode}", f"--run_dir={copied}", *options)
    assert outcome.status == 0, outcome.said()
    found = changed(before, digests(copied))
    assert not [path for path in found if not re.fullmatch(promised, path)], outcome.said()
    assert bool(found) == (mode != "benchmark")


@pytest.mark.full
def test_tune_writes_only_flagfile(run: Run, tmp_path: Path, cache_dir: str, monkeypatch):
    monkeypatch.setattr(contest, "ROUNDS", 1)
    monkeypatch.setattr(choices, "first", lambda *_: [])
    monkeypatch.setattr(choices, "around", lambda *_: [Candidate(feed="stream")])
    copied, path = tmp_path / "run", tmp_path / "tuned.flags"
    shutil.copytree(run.run_dir, copied)
    own = f"--flagfile={copied / 'config.flags'}", OTHER_STEPS, f"--cache_dir={cache_dir}"
    before = digests(copied)
    asked = [*own, "--mode=tune", "--progress=off", f"--tuned_flags={path}", f"--run_dir={copied}"]
    assert command.run(flags.parse(asked)) == 0
    assert path.exists() and not changed(before, digests(copied))
