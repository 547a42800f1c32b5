"""`--mode=evaluate --follow` evaluates each checkpoint once, beside a training and after kills."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from engine.checkpoint.catalog import saved_steps
from engine.runtime.lock import in_use
from tests.cli.command import HANG, LONG, Outcome, Run, Warm
from tests.sameness import points_of

FOLLOW = ("--mode=evaluate", "--follow", "--progress=off")
SAVES = (*LONG, "--epochs=12", "--checkpoint_every=25", "--keep=2", "--ema=0.9")


def rows_of(run_dir: Path, name: str = "follow") -> list[dict]:
    path = run_dir / "evaluations" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps_of(run_dir: Path, split: str) -> list[int]:
    return [row["step"] for row in rows_of(run_dir) if row["split"] == split]


def followed(warm: Warm, run_dir: Path, *options: str) -> Outcome:
    outcome = warm.run(*FOLLOW, f"--run_dir={run_dir}", *options)
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    return outcome


def evaluated(outcome: Outcome) -> int:
    return json.loads(outcome.out.splitlines()[-1])["evaluated"]


def test_started_before_the_training(warm: Warm, tmp_path: Path):
    run_dir = tmp_path / "run"
    with warm.started(*FOLLOW, f"--run_dir={run_dir}") as follower:
        time.sleep(0.5)
        assert follower.poll() is None and not run_dir.exists()
        run = warm.train(run_dir, *LONG, "--epochs=2")
        assert follower.wait(HANG) == 0
        out, err = follower.communicate()
    assert err == "" and out.startswith(f"waiting for the first checkpoint of {run_dir}\n")
    assert run.result["step"] in steps_of(run_dir, "validation")


def test_no_training_within_timeout(warm: Warm, tmp_path: Path):
    outcome = warm.run(*FOLLOW, f"--run_dir={tmp_path / 'run'}", "--follow_timeout=0")
    assert outcome.status == 2 and not (tmp_path / "run").exists(), outcome.said()
    assert outcome.err.count("\n") == 1 and "--follow_timeout" in outcome.err


def test_beside_a_training(warm: Warm, tmp_path: Path):
    """A follower that is killed twice evaluates each step once, and ends after the run."""
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *SAVES) as training:
        end = time.monotonic() + HANG
        while not saved_steps(str(run_dir)):
            assert time.monotonic() < end and training.poll() is None
            time.sleep(0.05)
        for kills in range(2):
            with warm.started(*FOLLOW, f"--run_dir={run_dir}") as follower:
                while len(rows_of(run_dir)) < 2 * (kills + 1) and follower.poll() is None:
                    assert time.monotonic() < end
                    time.sleep(0.05)
        with warm.started(*FOLLOW, f"--run_dir={run_dir}") as follower:
            assert training.wait(HANG) == 0
            assert follower.wait(HANG) == 0
            out, err = follower.communicate()
    assert err == "" and json.loads(out.splitlines()[-1])["rows"].endswith("follow.jsonl")
    for split in ("validation", "test"):
        steps = steps_of(run_dir, split)
        assert len(steps) == len(set(steps)) >= 3 and steps[-1] == 12 * 81
    run = Run(run_dir, None)
    final = {row["split"]: row for row in rows_of(run_dir)[-2:]}
    for split in ("validation", "test"):
        assert {name: final[split][name] for name in run.result[split]} == run.result[split]
    logged = {row["step"]: row for row in run.rows("validation")}
    same = [row for row in rows_of(run_dir) if row["split"] == "validation"]
    assert any(row["step"] in logged for row in same)
    assert all(row == logged.get(row["step"], row) for row in same)


def test_after_a_run(warm: Warm, whole: Run, tmp_path: Path):
    """The checkpoints of a finished run are evaluated once; rows that a kill cut short again."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole.run_dir, run_dir)
    saved = sorted(saved_steps(str(run_dir)))
    assert evaluated(followed(warm, run_dir)) == len(saved)
    assert steps_of(run_dir, "validation") == steps_of(run_dir, "test") == saved
    path = run_dir / "evaluations" / "follow.jsonl"
    text = path.read_text()
    assert evaluated(followed(warm, run_dir)) == 0 and path.read_text() == text
    for cut in (10, len(text.splitlines()[-1]) + 10):  # in the last row, and in the one before
        path.write_text(text[:-cut])
        assert evaluated(followed(warm, run_dir)) == 1 and path.read_text() == text
    points = points_of(run_dir, "follow_test")
    assert points.keys() == {"loss", "accuracy"}
    assert [step for step, _ in points["loss"]] == saved  # each once, after the rows were cut


def test_another_split_under_another_name(warm: Warm, whole: Run, tmp_path: Path):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    followed(warm, tmp_path / "run")
    before = rows_of(tmp_path / "run")
    followed(warm, tmp_path / "run", "--split=test[:50]")
    assert rows_of(tmp_path / "run")[: len(before)] == before  # other splits stay
    followed(warm, tmp_path / "run", "--split=test[:50]", "--evaluation_name=fifty")
    rows = rows_of(tmp_path / "run", "fifty")
    assert {row["split"] for row in rows} == {"test[:50]"}
    assert {row["examples"] for row in rows} == {50}
    assert (tmp_path / "run" / "tensorboard" / "fifty_test__50").is_dir()


def test_run_that_is_not_started_again(warm: Warm, whole: Run, tmp_path: Path):
    """A run that has not ended is waited for, but not for ever."""
    shutil.copytree(whole.run_dir, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    outcome = followed(warm, tmp_path / "run", "--follow_timeout=1")
    assert "has trained" in outcome.out and "for 1 s (--follow_timeout)" in outcome.out


def test_signal_ends_it(warm: Warm, whole: Run, tmp_path: Path):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with warm.started(*FOLLOW, f"--run_dir={tmp_path / 'run'}") as follower:
        while not rows_of(tmp_path / "run"):
            time.sleep(0.02)
        second = warm.run(*FOLLOW, f"--run_dir={tmp_path / 'run'}")
        assert second.status == 2 and "is in use by another --follow" in second.err
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(HANG) == 143
        assert follower.communicate()[1] == ""


def test_damaged_checkpoint_is_passed_over(warm: Warm, whole: Run, tmp_path: Path):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    steps = saved_steps(str(tmp_path / "run"))
    first = min(steps)
    while (path := Path(saved_steps(str(tmp_path / "run")).get(first, "none"))).exists():
        path.rename(path.with_suffix(".copy"))  # a step may be saved twice, also as the best
    content = bytearray(Path(steps[first]).with_suffix(".copy").read_bytes())
    content[-5000] ^= 1
    damaged = Path(steps.pop(first))
    damaged.write_bytes(content)
    outcome = followed(warm, tmp_path / "run")
    assert f"cannot load checkpoint {damaged}" in outcome.out
    assert steps_of(tmp_path / "run", "test") == sorted(steps)


def test_lock_in_use(tmp_path: Path):
    """A process that has ended, or of another host that is silent, does not train the run."""
    lock, name = tmp_path / "lock", socket.gethostname()
    assert not in_use(str(tmp_path))
    for text, expected in {
        f"process 1 on {name} since now\n": True,
        f"process 4194305 on {name} since now\n": False,  # above the largest process number
        "process 1 on elsewhere since now\n": False,
        "": True,
    }.items():
        lock.write_text(text)
        assert in_use(str(tmp_path)) == expected
    lock.write_text("process 1 on elsewhere since now\n")
    (tmp_path / "clock.json").write_text("{}")
    assert in_use(str(tmp_path))


@pytest.mark.parametrize("name", ["a/b", "", ".."])
def test_refuses_names(warm: Warm, whole: Run, name: str):
    outcome = warm.run(*FOLLOW, f"--run_dir={whole.run_dir}", f"--evaluation_name={name}")
    assert outcome.status == 2 and f"--evaluation_name={name}:" in outcome.err
