"""Runs with `--evaluation_views`: the scores, decisions and files of evaluations over views."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cli.command import HANG, Run, Warm, await_rows
from tests.sameness import differences

# 11 steps an epoch; an evaluation every 7, so most of them are inside an epoch, with padding.
OPTIONS = (
    *("--evaluation_views=flip,shift:1", "--evaluate_every=7", "--epochs=6", "--patience=2"),
    *("--log_every=3", "--checkpoint_every=5", "--learning_rate=0.003", "--schedule=plateau"),
    *("--plateau_patience=0", "--decay_rate=0.5"),
)


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run over views, without interruption."""
    return warm.train(tmp_path_factory.mktemp("views") / "run", *OPTIONS)


def test_interrupted(warm: Warm, run: Run, tmp_path: Path):
    """A run that is killed and resumed has the evaluations, and the bits, of one that is not."""
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *OPTIONS) as process:
        await_rows(process, run_dir, 9)
        process.send_signal(signal.SIGKILL)
        process.wait(HANG)
    warm.train(run_dir, *OPTIONS)
    assert differences(run.run_dir, run_dir) == []


def test_other_views_are_refused(warm: Warm, run: Run):
    """The views decide which weights are the best, so a run is resumed with its own alone."""
    other = (*OPTIONS, "--evaluation_views=flip", "--epochs=7")
    outcome = warm.run(f"--run_dir={run.run_dir}", *other)
    assert outcome.status == 2 and "--evaluation_views=flip (was flip,shift:1)" in outcome.err


def test_same_scores_in_every_mode(warm: Warm, run: Run):
    """Evaluate and predict score the final weights as the run did, on other views otherwise."""
    assert run.result["evaluation_views"] == "flip,shift:1"
    assert "--evaluation_views=flip,shift:1: evaluation takes 6 passes" in run.outcome.out
    of_run = f"--run_dir={run.run_dir}"

    def last_line(*options: str) -> dict:
        outcome = warm.run(of_run, *options)
        assert outcome.status == 0, outcome.said()
        return json.loads(outcome.out.splitlines()[-1])

    test = run.result["test"]
    evaluated = last_line("--mode=evaluate")
    assert (evaluated["test"], evaluated["evaluation_views"]) == (test, "flip,shift:1")
    confusion = evaluated["tables"]["test"]["confusion"]
    right = sum(row[label] for label, row in enumerate(confusion))
    assert right == round(test["accuracy"] * test["examples"])
    predicted = last_line("--mode=predict", "--split=test")
    assert (predicted["right"], predicted["evaluation_views"]) == (right, "flip,shift:1")
    alone = last_line("--mode=evaluate", "--split=test", "--evaluation_views=")
    assert "evaluation_views" not in alone and abs(alone["test"]["loss"] - test["loss"]) > 0.01
