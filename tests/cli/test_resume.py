"""Stopped anywhere, by anything, the same command ends with the same bits."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from engine.keeping.catalogue import list_checkpoints
from tests.cli.command import HANG, LONG, Command, Interrupted, Run, Warm, await_rows
from tests.cli.test_bad_input import contents
from tests.sameness import differences

TOTAL = 6 * 81


def assert_same_run(one: Run, other: Run) -> None:
    """All that a run leaves is the same to the bit, wall time apart."""
    assert differences(one.run_dir, other.run_dir) == []


@pytest.mark.parametrize(
    ("number", "status", "feed"),
    [(signal.SIGINT, 130, "resident"), (signal.SIGTERM, 143, "stream")],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_saves_and_the_same_command_ends_as_if_nothing_had_happened(
    command: Command,
    warm: Warm,
    whole: Run,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
    feed: str,
):
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
    assert f"goes on from step {step:,}" in resumed.outcome.out
    assert resumed.result["restarts"] == 1
    assert resumed.result["traces"]["train"] == 1
    assert_same_run(resumed, whole)


def test_killed_between_checkpoints_it_ends_as_if_nothing_had_happened(
    killed: Interrupted, whole: Run
):
    assert killed.stopped.status == -signal.SIGKILL
    assert "result.json" not in killed.left
    assert killed.rows[-1]["step"] > killed.saved  # there was something to take back
    assert f"goes on from step {killed.saved:,}" in killed.resumed.outcome.out
    assert_same_run(killed.resumed, whole)


def test_a_signal_at_the_end_of_the_last_epoch_still_says_how_to_go_on(
    command: Command, warm: Warm, tmp_path: Path
):
    options = f"--run_dir={tmp_path / 'run'}", "--epochs=2"
    with command.started(*options) as process:
        await_rows(process, tmp_path / "run", 4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
    if not (tmp_path / "run" / "result.json").exists():  # else it came too late
        assert process.returncode == 130 and err == ""
        assert "run the same command" in out.splitlines()[-1], out
    assert warm.train(tmp_path / "run", "--epochs=2").result["step"] == 22


def test_two_processes_do_not_share_a_run_dir(command: Command, warm: Warm, tmp_path: Path):
    run_dir = tmp_path / "run"
    with command.started(f"--run_dir={run_dir}", *LONG) as process:
        await_rows(process, run_dir, 3)
        process.send_signal(signal.SIGSTOP)  # it stays in the middle, however long this takes
        before = (run_dir / "metrics.jsonl").read_bytes()
        outcome = warm.run(f"--run_dir={run_dir}", *LONG)
        assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert outcome.status == 2, outcome.said()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and str(run_dir) in line


def test_a_finished_run_is_done_already_and_its_result_stays(
    warm: Warm, whole: Run, tmp_path: Path
):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    again = warm.train(tmp_path / "run", *LONG)
    assert f"done already at step {TOTAL}" in again.outcome.out
    assert again.result["restarts"] == whole.result["restarts"] == 0
    assert_same_run(again, whole)


@pytest.fixture(scope="module")
def raised(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Run]:
    """A run of four epochs made one of six, and the checkpoints that it had after four."""
    run_dir = tmp_path_factory.mktemp("raised") / "run"
    warm.train(run_dir, *LONG, "--epochs=4", "--keep=100")
    files = (run_dir / "checkpoints").glob("ckpt-*")
    before = {str(path): path.read_bytes() for path in files}
    return before, warm.train(run_dir, *LONG, "--keep=100")


def test_more_epochs_make_it_the_run_that_had_them_from_the_start(
    raised: tuple[dict[str, bytes], Run], whole: Run
):
    _, run = raised
    assert f"goes on from step {4 * 81}" in run.outcome.out
    assert_same_run(run, whole)


def test_going_on_writes_over_no_checkpoint_that_is_there(
    raised: tuple[dict[str, bytes], Run],
):
    """Else a kill in the middle of a save would take the newest one with it."""
    before, run = raised
    assert before == {name: Path(name).read_bytes() for name in before}
    assert len(run.checkpoints) > len(before)


# Damage


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    warm: Warm, whole: Run, tmp_path: Path
):
    run_dir = tmp_path / "run"
    warm.train(run_dir, *LONG, "--epochs=4")
    newest = list_checkpoints(str(run_dir / "checkpoints"))[-1]
    Path(newest).write_bytes(Path(newest).read_bytes()[:1000])
    outcome = warm.run(f"--run_dir={run_dir}", *LONG)
    assert f"cannot load checkpoint {newest}" in outcome.out
    assert Path(f"{newest}.damaged").exists()
    assert outcome.status == 0, outcome.said()
    assert_same_run(Run(run_dir, outcome), whole)


def test_damaged_checkpoints_alone_never_start_the_run_anew_in_silence(warm: Warm, tmp_path: Path):
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
    assert "delete" in line and "--run_dir" in line  # what to do
    assert contents(run_dir) == before


def test_the_same_examples_prepared_again_are_the_same_data(warm: Warm, whole: Run, tmp_path: Path):
    """As on another machine: the fields of a record are written in any order."""
    run_dir = tmp_path / "run"
    warm.train(run_dir, *LONG, "--epochs=4")
    resumed = warm.train(run_dir, *LONG, f"--cache_dir={tmp_path / 'cache'}")
    assert "goes on from step 324" in resumed.outcome.out
    assert_same_run(resumed, whole)


# What is done


def test_an_early_stopped_run_says_that_more_epochs_will_not_go_on(warm: Warm, tmp_path: Path):
    options = "--model=logistic", "--patience=1", "--min_delta=9"
    first = warm.train(tmp_path / "run", *options, "--epochs=4")
    assert first.result["stopped_early"] and first.result["epoch"] == 2
    again = warm.train(tmp_path / "run", *options, "--epochs=9")
    assert again.result["weights_sha256"] == first.result["weights_sha256"]
    (line,) = (line for line in again.outcome.out.splitlines() if "done already" in line)
    assert "stopped early" in line and "raise --epochs" not in line
