"""Tests that the same command, after any interruption, resumes the run and ends bitwise equal."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from engine.checkpoint.catalog import list_checkpoints
from tests.choices import seldom
from tests.cli.command import HANG, LONG, Command, Interrupted, Run, Warm, await_rows
from tests.cli.test_bad_input import contents
from tests.sameness import differences

TOTAL = 6 * 81


def assert_same_run(one: Run, other: Run) -> None:
    """Asserts that two runs are bitwise equal, except for measured times."""
    assert differences(one.run_dir, other.run_dir) == []


@pytest.mark.parametrize(
    ("number", "status", "feed"),
    [seldom(signal.SIGINT, 130, "resident"), (signal.SIGTERM, 143, "stream")],
    ids=["SIGINT", "SIGTERM"],
)
def test_signal_then_resume(
    command: Command,
    warm: Warm,
    whole: Run,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
    feed: str,
):
    """A signal saves a checkpoint, and the resumed run ends bitwise equal."""
    run_dir, options = tmp_path / "run", [*LONG, f"--feed={feed}"]
    with command.started(f"--run_dir={run_dir}", *options) as process:
        await_rows(process, run_dir, 8)
        process.send_signal(number)
        out, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (status, "")
    found = re.search(r"step ([\d,]+)\b.*\bsaved\b.*run the same command", out.splitlines()[-1])
    assert found, out
    step = int(found[1].replace(",", ""))
    assert 0 < step < TOTAL
    assert not (run_dir / "result.json").exists()
    resumed = warm.train(run_dir, *options)
    assert f"resumed at step {step:,}" in resumed.outcome.out
    assert resumed.result["restarts"] == 1
    assert resumed.result["traces"]["train"] == 1
    assert_same_run(resumed, whole)


def test_kill_then_resume(killed: Interrupted, whole: Run):
    """A run killed between two checkpoints, and resumed, ends bitwise equal."""
    assert killed.stopped.status == -signal.SIGKILL
    assert "result.json" not in killed.left
    assert killed.rows[-1]["step"] > killed.saved  # rows to take back exist
    assert f"resumed at step {killed.saved:,}" in killed.resumed.outcome.out
    assert_same_run(killed.resumed, whole)


def test_signal_at_last_epoch_end(warm: Warm, tmp_path: Path):
    """A signal at the end of the last epoch saves, and the output says how to resume."""
    options = f"--run_dir={tmp_path / 'run'}", "--epochs=2"
    with warm.started(*options) as process:
        await_rows(process, tmp_path / "run", 4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
    if not (tmp_path / "run" / "result.json").exists():  # otherwise the signal came too late
        assert process.returncode == 130 and err == ""
        assert "run the same command" in out.splitlines()[-1], out
    assert warm.train(tmp_path / "run", "--epochs=2").result["step"] == 22


def test_run_dir_lock(warm: Warm, tmp_path: Path):
    """A second process on the same run directory is refused."""
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *LONG) as process:
        await_rows(process, run_dir, 3)
        process.send_signal(signal.SIGSTOP)  # paused, so that it cannot end during the check
        before = (run_dir / "metrics.jsonl").read_bytes()
        outcome = warm.run(f"--run_dir={run_dir}", *LONG)
        assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert outcome.status == 2, outcome.said()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and str(run_dir) in line


def test_finished_run_unchanged(warm: Warm, whole: Run, tmp_path: Path):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    again = warm.train(tmp_path / "run", *LONG)
    assert f"already complete at step {TOTAL}" in again.outcome.out
    assert again.result["restarts"] == whole.result["restarts"] == 0
    assert_same_run(again, whole)


@pytest.fixture(scope="module")
def raised(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Run]:
    """Returns the checkpoint files after four epochs, by path, and the run extended to six."""
    run_dir = tmp_path_factory.mktemp("raised") / "run"
    warm.train(run_dir, *LONG, "--epochs=4", "--keep=100")
    files = (run_dir / "checkpoints").glob("ckpt-*")
    before = {str(path): path.read_bytes() for path in files}
    return before, warm.train(run_dir, *LONG, "--keep=100")


def test_more_epochs_keep_bits(raised: tuple[dict[str, bytes], Run], whole: Run):
    """A run extended to more epochs equals one trained with that number from the start."""
    _, run = raised
    assert f"resumed at step {4 * 81}" in run.outcome.out
    assert_same_run(run, whole)


def test_resume_keeps_checkpoints(
    raised: tuple[dict[str, bytes], Run],
):
    """Resuming does not change existing checkpoints, so a kill in a save destroys none."""
    before, run = raised
    assert before == {name: Path(name).read_bytes() for name in before}
    assert len(run.checkpoints) > len(before)


# Damaged checkpoints and data prepared again


def test_damaged_newest_checkpoint(warm: Warm, whole: Run, tmp_path: Path):
    """The run resumes from the checkpoint before a damaged one."""
    run_dir = tmp_path / "run"
    warm.train(run_dir, *LONG, "--epochs=4")
    newest = list_checkpoints(str(run_dir / "checkpoints"))[-1]
    Path(newest).write_bytes(Path(newest).read_bytes()[:1000])
    outcome = warm.run(f"--run_dir={run_dir}", *LONG)
    assert f"cannot load checkpoint {newest}" in outcome.out
    assert Path(f"{newest}.damaged").exists()
    assert outcome.status == 0, outcome.said()
    assert_same_run(Run(run_dir, outcome), whole)


def test_all_checkpoints_damaged(warm: Warm, tmp_path: Path):
    """If all checkpoints are damaged, the command fails and does not restart the run."""
    run_dir = tmp_path / "run"
    options = "--model=logistic", "--epochs=2"
    warm.train(run_dir, *options)
    for path in list_checkpoints(str(run_dir / "checkpoints")):
        Path(path).write_bytes(b"torn")
    before = contents(run_dir)
    outcome = warm.run(f"--run_dir={run_dir}", *options, "--epochs=3")
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and f"{run_dir}/checkpoints" in line
    assert "delete" in line and "--run_dir" in line  # the remedy
    assert contents(run_dir) == before


def test_resume_on_prepared_again_data(warm: Warm, whole: Run, tmp_path: Path):
    """A run resumes on data that was prepared again, if the examples are the same."""
    run_dir = tmp_path / "run"
    warm.train(run_dir, *LONG, "--epochs=4")
    resumed = warm.train(run_dir, *LONG, f"--cache_dir={tmp_path / 'cache'}")
    assert "resumed at step 324" in resumed.outcome.out
    assert_same_run(resumed, whole)


# Finished runs


def test_more_epochs_after_early_stop(warm: Warm, tmp_path: Path):
    options = "--model=logistic", "--patience=1", "--min_delta=9"
    first = warm.train(tmp_path / "run", *options, "--epochs=4")
    assert first.result["stopped_early"] and first.result["epoch"] == 2
    again = warm.train(tmp_path / "run", *options, "--epochs=9")
    assert again.result["weights_sha256"] == first.result["weights_sha256"]
    (line,) = (line for line in again.outcome.out.splitlines() if "already complete" in line)
    assert "stopped early" in line and "raise --epochs" not in line
