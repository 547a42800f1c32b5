"""Checkpoints that are kept, for good or as the N best: which, after any kill, and their use."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import catalog
from tests.choices import seldom
from tests.cli.command import HANG, LONG, Run, Warm, await_rows
from tests.sameness import differences

# 81 steps an epoch; the evaluation at step 162 is kept, too.
KEPT = (*LONG, "--epochs=3", "--keep_every=54", "--keep=2", "--ema=0.9")
STEPS = [54, 108, 162, 216]


@pytest.fixture(scope="module")
def kept(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that was not interrupted."""
    return warm.train(tmp_path_factory.mktemp("kept") / "run", *KEPT)


def saved(run_dir: Path) -> dict[int, dict[str, np.ndarray]]:
    """Returns the arrays of each kept checkpoint by its step, without timings."""
    found = {}
    for path in catalog.list_checkpoints(catalog.kept_directory(str(run_dir))):
        contents = catalog.read(path)
        assert contents.facts["step"] not in found, "two checkpoints of one step"
        found[contents.facts["step"]] = {
            name: array for name, array in contents.arrays.items() if not name.startswith("timing/")
        }
    return found


def test_kept_steps(kept: Run):
    assert sorted(saved(kept.run_dir)) == STEPS
    assert len(kept.checkpoints) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kept_after_an_interruption(warm: Warm, kept: Run, tmp_path: Path, number: signal.Signals):
    """An interrupted run keeps the same checkpoints, one of each step, with the same bits."""
    with warm.started(f"--run_dir={tmp_path / 'run'}", *KEPT) as process:
        await_rows(process, tmp_path / "run", 28)
        process.send_signal(number)
        process.wait(HANG)
    warm.train(tmp_path / "run", *KEPT)
    assert differences(kept.run_dir, tmp_path / "run") == []
    one, other = saved(kept.run_dir), saved(tmp_path / "run")
    assert one.keys() == other.keys()
    for step in one:
        assert one[step].keys() == other[step].keys()
        for name, array in one[step].items():
            np.testing.assert_array_equal(array, other[step][name], err_msg=f"{name} of {step}")


def test_weights_of_a_step(warm: Warm, kept: Run):
    """Evaluation of a kept checkpoint gives the metrics of the evaluation at its step."""
    outcome = warm.run("--mode=evaluate", f"--run_dir={kept.run_dir}", "--weights=step:162")
    assert outcome.status == 0, outcome.said()
    assert "the kept weights, of step 162" in outcome.out
    scored = json.loads(outcome.out.splitlines()[-1])["validation"]
    (row,) = (each for each in kept.rows("validation") if each["step"] == 162)
    assert {name: row[name] for name in scored} == scored
    for mode in ("export", "predict"):
        options = ["--split=test[:5]"] if mode == "predict" else []
        given = (f"--mode={mode}", f"--run_dir={kept.run_dir}", "--weights=step:54", *options)
        outcome = warm.run(*given)
        assert outcome.status == 0 and "of step 54" in outcome.out, outcome.said()


def test_step_without_a_checkpoint(warm: Warm, kept: Run):
    outcome = warm.run("--mode=evaluate", f"--run_dir={kept.run_dir}", "--weights=step:55")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "has no checkpoint of that step, but of 54, 108, 162, " in outcome.err


@pytest.mark.parametrize(
    "value", ["step:", "step:-3", "latest", "step:1.5", "average:0", "average"]
)
def test_refuses_weights(warm: Warm, kept: Run, value: str):
    outcome = warm.run("--mode=evaluate", f"--run_dir={kept.run_dir}", f"--weights={value}")
    assert outcome.status == 2
    assert f"--weights={value}: give auto, newest, best, step:N, such as" in outcome.err


# 27 steps an epoch; the learning rate is too high for the metric to improve in each epoch.
BEST = ("--model=mlp", "--hidden=16", "--global_batch_size=48", "--learning_rate=0.03")
BEST = (*BEST, "--ema=0.8", "--checkpoint_every=9", "--log_every=9")


@pytest.fixture(scope="module")
def ranked(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that keeps its three best checkpoints and was not interrupted."""
    return warm.train(
        tmp_path_factory.mktemp("ranked") / "run", *BEST, "--epochs=9", "--keep_best=3"
    )


def best_of(run_dir: Path) -> list[int]:
    paths = catalog.list_checkpoints(catalog.best_directory(str(run_dir)))
    return sorted(catalog.read_metadata(path)["step"] for path in paths)


def test_best_steps(ranked: Run):
    """The three best evaluations are kept; of equal ones, the earlier."""
    rows = sorted((-row["accuracy"], row["step"]) for row in ranked.rows("validation"))
    assert best_of(ranked.run_dir) == sorted(step for _, step in rows[:3])
    assert rows[0][1] != 9 * 27 or rows[1][1] != 8 * 27  # not merely the last ones
    assert "of the best, saved to" in ranked.outcome.out


@pytest.mark.parametrize(
    ("number", "rows"),
    [
        (signal.SIGKILL, 9),
        (signal.SIGTERM, 23),
        seldom(signal.SIGTERM, 9),
        seldom(signal.SIGKILL, 23),
    ],
)
def test_best_after_an_interruption(warm: Warm, ranked: Run, tmp_path: Path, number, rows: int):
    """An interrupted run keeps the same best checkpoints, with the same bits."""
    options = (*BEST, "--epochs=9", "--keep_best=3")
    with warm.started(f"--run_dir={tmp_path / 'run'}", *options) as process:
        await_rows(process, tmp_path / "run", rows)
        process.send_signal(number)
        process.wait(HANG)
    warm.train(tmp_path / "run", *options)
    assert differences(ranked.run_dir, tmp_path / "run") == []
    assert best_of(ranked.run_dir) == best_of(tmp_path / "run")


def test_other_number_on_a_resume(warm: Warm, tmp_path: Path):
    """Fewer best checkpoints leave those of a run that had as few; more are filled from then on."""
    alone = warm.train(tmp_path / "alone", *BEST, "--epochs=5", "--keep_best=1")
    run = warm.train(tmp_path / "run", *BEST, "--epochs=4", "--keep_best=3")
    assert len(best_of(run.run_dir)) == 3
    warm.train(run.run_dir, *BEST, "--epochs=5", "--keep_best=1")
    assert differences(alone.run_dir, run.run_dir) == []
    warm.train(run.run_dir, *BEST, "--epochs=7", "--keep_best=3")
    assert len(best_of(run.run_dir)) == 3
    assert set(best_of(run.run_dir)) <= {*best_of(alone.run_dir), 6 * 27, 7 * 27}


def test_average_without_statistics(warm: Warm, ranked: Run):
    """A network without statistics is averaged, and its training data are not looked at."""
    asked = ("--mode=predict", "--split=test", "--weights=average:3", "--train_split=train[:9]")
    outcome = warm.run(f"--run_dir={ranked.run_dir}", *asked)
    assert outcome.status == 0 and "the average of the 3 best" in outcome.out, outcome.said()
