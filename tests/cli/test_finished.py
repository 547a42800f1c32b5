"""Tests of finished runs: the same command changes no file; other options apply or are refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import catalog
from engine.config import flags
from engine.config.option import written
from tests.chaos.sequences import contents
from tests.cli.command import Command, Outcome, Run, Warm
from tests.unit.test_schema import FIELDS, another, ids

OPTIONS = ("--model=logistic", "--learning_rate=0.02", "--epochs=3", "--log_every=5")
# Options of a single command, not of the run; another `mode` is another command.
_OF_A_COMMAND = ("mode", "run_dir", "load", "cache_dir")


@pytest.fixture(scope="module")
def done(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that was trained to its end."""
    return warm.train(tmp_path_factory.mktemp("done") / "run", *OPTIONS)


@pytest.fixture
def run_dir(done: Run, tmp_path: Path) -> Path:
    """Returns a copy of the run, with the path of the copy in config.flags."""
    shutil.copytree(done.run_dir, tmp_path / "run")
    path = tmp_path / "run" / "config.flags"
    path.write_text(path.read_text().replace(str(done.run_dir), str(tmp_path / "run")))
    return tmp_path / "run"


def asked(warm: Warm, run_dir: Path, *more: str) -> Outcome:
    return warm.run(f"--run_dir={run_dir}", *OPTIONS, *more)


def assert_consistent(run_dir: Path) -> None:
    """Asserts that config.flags, result.json, checkpoints, metrics.jsonl and report agree."""
    config = flags.parse([f"--flagfile={run_dir / 'config.flags'}"])
    result = json.loads((run_dir / "result.json").read_text())
    newest = catalog.read(catalog.newest_checkpoint(str(run_dir)) or "")
    total = config.training.steps(11)
    assert result["step"] == newest.facts["step"]
    assert result["step"] == total or (result["stopped_early"] and result["step"] < total)
    tested = newest
    if config.stopping.restore_best:
        best = catalog.load_best(str(run_dir))
        assert best is not None
        tested = best.archive
    assert result["weights_sha256"] == digest(tested.arrays)
    assert result["weights_step"] == tested.facts["step"]
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    of_test = [{k: row[k] for k in result["test"]} for row in rows if row["split"] == "test"]
    assert of_test == ([result["test"]] if config.data.test_split else [])
    assert bool(result["test"]) == bool(config.data.test_split)
    if config.report.report:
        page = (run_dir / "report.html").read_text()
        for name in ("restore_best", "test_split", "epochs", "train_steps"):
            (told,) = re.findall(rf"--{name}=(.*)", page)
            assert told == re.findall(rf"--{name}=(.*)", flags.flagfile(config))[0]


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 of a logistic regression's weights in a checkpoint, as in result.json."""
    found = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("model/")):
        found.update(arrays[name].tobytes())
    return found.hexdigest()


def test_finished_run_is_consistent(run_dir: Path):
    assert_consistent(run_dir)


def test_same_command_changes_nothing(warm: Warm, run_dir: Path):
    before = contents(run_dir)
    for more in ((), ("--resume=must",), ("--progress=on",), ("--progress=off",)):
        outcome = asked(warm, run_dir, *more)
        assert outcome.status == 0, outcome.said()
        assert "already complete at step 33; raise --epochs to continue" in outcome.out
        assert contents(run_dir) == before
    figures = json.loads((run_dir / "result.json").read_text())
    assert figures["startup_seconds"] and figures["first_step_seconds"]
    assert figures["traces"]["train"] == 1


def test_same_command_without_tensorflow(command: Command, run_dir: Path):
    hidden = {"PYTHONPATH": str(run_dir.parent)}
    (run_dir.parent / "tensorflow.py").write_text("raise ImportError('not needed')")
    outcome = command.run(f"--run_dir={run_dir}", *OPTIONS, **hidden)
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()


@pytest.mark.parametrize(
    ("name", "field"), [each for each in FIELDS if each[1].name not in _OF_A_COMMAND], ids=ids
)
def test_changed_option(warm: Warm, run_dir: Path, name: str, field):
    """A changed option is either applied to all files of the run, or refused."""
    before = contents(run_dir)
    kept = json.loads((run_dir / "result.json").read_text())["onednn"]  # by the processor
    given = {
        "onednn": "off" if kept == "on" else "on",
        "model": "mlp",
        "jit": "step",
        "validation_split": "0.2",
        "test_split": "test[:50]",
        "train_steps": 40,
    }
    value = given.get(field.name, another(field))
    assert value != field.default
    option = f"--{field.name}={written(value)}"
    outcome = asked(warm, run_dir, option)
    assert outcome.status in (0, 2), outcome.said()
    after = contents(run_dir)
    if outcome.status == 2:
        (line,) = outcome.err.splitlines()
        assert option in line, line
    if outcome.status == 2 or field.metadata["affects"] == "":
        assert after == before
    if outcome.status == 0:
        assert_consistent(run_dir)
        made = f"{option}\n" in after["config.flags"].decode()
        assert made or f"--{field.name}" in outcome.out or field.name in ("weights", "progress")
    expected = {"trajectory": 2, "record": 2, "end": 0, "": 0, "length": 0}
    if field.name != "resume":
        assert outcome.status == expected[field.metadata["affects"]]


def test_restore_best_afterwards(warm: Warm, tmp_path: Path):
    """With `--restore_best`, a finished run is evaluated again with its best weights."""
    spoiled = "--schedule=step", "--decay_steps=22", "--decay_rate=3000", "--report"
    run = warm.train(tmp_path / "run", *OPTIONS, *spoiled, "--epochs=4")
    first = run.result
    assert first["best"]["step"] < first["step"]
    figures = ("startup_seconds", "first_step_seconds", "train_seconds", "steps_per_second")
    again = warm.train(tmp_path / "run", *OPTIONS, *spoiled, "--epochs=4", "--restore_best")
    assert again.result["validation"]["accuracy"] == first["best"]["value"]
    assert again.result["validation"] != first["validation"]
    assert [again.result[name] for name in figures] == [first[name] for name in figures]
    assert again.result["traces"] == first["traces"]
    outcome = warm.run("--mode=evaluate", f"--run_dir={run.run_dir}")
    assert outcome.status == 0, outcome.said()
    evaluated = json.loads(outcome.out.splitlines()[-1])
    assert evaluated["validation"] == again.result["validation"]
    assert evaluated["test"] == again.result["test"]
    assert_consistent(run.run_dir)


def test_log_every_with_more_epochs(warm: Warm, run_dir: Path):
    """An option that affects logging is accepted if the run is extended."""
    outcome = asked(warm, run_dir, "--log_every=3", "--epochs=4")
    assert outcome.status == 0, outcome.said()
    rows = Run(run_dir, outcome).rows("train")
    assert [row["step"] for row in rows if row["step"] > 33] == [36, 39, 42, 44]


def test_unreadable_result_rewritten(warm: Warm, run_dir: Path):
    before = json.loads((run_dir / "result.json").read_text())
    (run_dir / "result.json").write_text("{")
    assert asked(warm, run_dir).status == 0
    after = json.loads((run_dir / "result.json").read_text())
    assert {**after, "traces": 0} == {**before, "traces": 0}
    assert after["traces"]["train"] == 1
