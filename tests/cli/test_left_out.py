"""Tests that steps with a damaged example are rolled back and skipped, and the example is named."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests import measured
from tests.choices import seldom
from tests.cli.command import HANG, Run, Warm, await_rows
from tests.measured import BROKEN

EPOCHS = 3
OPTIONS = (
    "--model=cnn",
    "--global_batch_size=10",
    f"--epochs={EPOCHS}",
    "--validation_split=0.1",
    "--log_every=4",
    "--checkpoint_every=5",
    "--ema=0.9",
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Prepares data in which one example has a NaN; returns the options of a run on this data."""
    return [f"--dataset={measured.prepared(tmp_path_factory.mktemp('data'))}", *OPTIONS]


@pytest.fixture(scope="module")
def found(warm: Warm, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that detected and skipped the steps with the NaN."""
    return warm.train(tmp_path_factory.mktemp("found") / "run", *options)


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "left_out.jsonl").read_text().splitlines()]


def test_bad_steps_skipped(found: Run):
    """Each bad step is rolled back and skipped, and the run completes."""
    left_out = [row["step"] for row in records(found.run_dir)]
    assert len(left_out) == EPOCHS and found.result["left_out"] == left_out
    assert found.result["skipped_steps"] == EPOCHS
    for step in left_out:
        assert f"bad step {step:,} (gradient not finite): rolled back to step" in found.outcome.out
        assert f"step {step:,} skipped: gradient not finite" in found.outcome.out
    assert all(np.isfinite(row["loss"]) for row in found.rows())


def test_record_names_example(found: Run):
    """left_out.jsonl names the example with the NaN, and the batch of that example is saved."""
    for row in records(found.run_dir):
        assert row["split"] == "train[:135]" and row["why"] == "gradient not finite"
        (unsound,) = row["unsound"]
        assert (unsound["example"], unsound["image"]) == (BROKEN, "not finite")
        assert BROKEN in row["examples"] and len(row["examples"]) <= 10
        with np.load(found.run_dir / row["batch"]) as batch:
            assert batch["numbers"].tolist() == row["examples"]
            (at,) = np.flatnonzero(np.isnan(batch["images"]).any((1, 2, 3)))
            assert batch["numbers"][at] == BROKEN
            assert np.isfinite(np.delete(batch["losses"], at)).all()


def test_leave_out_keeps_bits(warm: Warm, options: list[str], found: Run, tmp_path: Path):
    """A run with the same steps in `--leave_out` from its start ends bitwise equal."""
    steps = ",".join(map(str, found.result["left_out"]))
    told = warm.train(tmp_path / "run", *options, f"--leave_out={steps}", "--most_left_out=0")
    assert "bad step " not in told.outcome.out
    assert told.result["weights_sha256"] == found.result["weights_sha256"]
    assert told.curves == found.curves
    assert [row["why"] for row in records(told.run_dir)] == ["asked for"] * EPOCHS


@pytest.mark.parametrize("number", [signal.SIGKILL, seldom(signal.SIGTERM)])
def test_interrupted_skips_same_steps(
    warm: Warm, options: list[str], found: Run, tmp_path: Path, number
):
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *options) as process:
        await_rows(process, run_dir, 6)
        process.send_signal(number)
        process.communicate(timeout=HANG)
    resumed = warm.train(run_dir, *options)
    assert resumed.result["weights_sha256"] == found.result["weights_sha256"]
    assert resumed.result["left_out"] == found.result["left_out"]
    assert resumed.curves == found.curves
    assert records(run_dir) == records(found.run_dir)


def test_too_many_bad_steps(warm: Warm, options: list[str], found: Run, tmp_path: Path):
    """With more bad steps than `--most_left_out`, the run stops; a larger value resumes it."""
    run_dir = tmp_path / "run"
    outcome = warm.run(f"--run_dir={run_dir}", *options, "--most_left_out=1")
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    first, second, _ = found.result["left_out"]
    assert line.startswith(f"error: step {second:,} is a bad step") and "--most_left_out=1" in line
    assert f"steps {first:,}, {second:,}" in line and "run the same command" not in line
    assert [row["step"] for row in records(run_dir)] == [first, second]
    assert all((run_dir / row["batch"]).exists() for row in records(run_dir))
    on = warm.train(run_dir, *options, "--most_left_out=5")
    assert on.result["weights_sha256"] == found.result["weights_sha256"]


def test_tolerated_bad_steps(warm: Warm, options: list[str], found: Run, tmp_path: Path):
    """Tolerated bad steps do not update the weights, and are counted."""
    passed = warm.train(tmp_path / "run", *options, "--bad_steps=9", "--bad_steps_in_a_row=9")
    assert passed.result["left_out"] == [] and passed.result["skipped_steps"] == EPOCHS
    assert passed.result["weights_sha256"] == found.result["weights_sha256"]


def test_spike_skipped(warm: Warm, tmp_path: Path):
    """With `--spike`, a step whose loss is far above those before is rolled back and skipped."""
    dataset = measured.prepared(tmp_path / "data", measured.Loud)
    # With this seed the spike is the 23rd step: there are earlier losses to compare it with.
    options = [f"--dataset={dataset}", *OPTIONS, "--global_batch_size=4", "--seed=3", "--spike=50"]
    options.append("--virtual_devices=2")
    found = warm.train(tmp_path / "found", *options)
    rows = records(tmp_path / "found")
    assert rows and {row["why"] for row in rows} == {"loss far above those before"}
    assert all(BROKEN in row["examples"] for row in rows)
    assert found.result["left_out"] == [row["step"] for row in rows]
    assert found.result["skipped_steps"] == len(rows)
    steps = ",".join(map(str, found.result["left_out"]))
    told = warm.train(tmp_path / "told", *options, f"--leave_out={steps}")
    assert told.result["weights_sha256"] == found.result["weights_sha256"]
    assert told.curves == found.curves


def test_changed_data_refused(warm: Warm, tmp_path: Path):
    """A run is not resumed on data that was prepared again with other examples."""
    data = tmp_path / "data"
    dataset = measured.prepared(data)
    options = [*OPTIONS, "--epochs=1", f"--run_dir={tmp_path / 'run'}", f"--dataset={dataset}"]
    assert warm.run(*options).status == 0
    other = measured.prepared(tmp_path / "other", measured.Whole)
    for path in Path(dataset).glob("*.tfrecord*"):
        path.unlink()
    for path in Path(other).glob("*.tfrecord*"):
        path.rename(Path(dataset) / path.name.replace("whole", "measured"))
    outcome = warm.run(*options, "--epochs=2")
    assert outcome.status == 2, outcome.said()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: the data set is not the one that") and "--run_dir" in line
