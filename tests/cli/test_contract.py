"""Tests of the files, contents and output of a run on which users' scripts rely."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.choices import seldom
from tests.cli.command import Command, Run, Warm

TRAIN, VALIDATION, TEST = 1293, 144, 360  # examples of the bundled digits
BATCH, EPOCHS, PER_EPOCH = 64, 4, 21
OPTIONS = (
    f"--global_batch_size={BATCH}",
    f"--epochs={EPOCHS}",
    "--learning_rate=0.003",
    "--checkpoint_every=10",
    "--log_every=8",
    "--keep=2",
    "--seed=3",
)


@pytest.fixture(scope="module")
def run(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a small run on digits that was trained in a new process."""
    return command.train(tmp_path_factory.mktemp("contract") / "run", *OPTIONS)


@pytest.fixture(scope="module")
def early(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that stopped early: the learning rate is too large after two good epochs."""
    spoiled = "--schedule=step", "--decay_steps=24", "--decay_rate=3000"
    return warm.train(
        tmp_path_factory.mktemp("early") / "run",
        f"--global_batch_size={BATCH}",
        "--learning_rate=0.003",
        *spoiled,
        "--epochs=9",
        "--patience=2",
        "--restore_best",
    )


# The graph


@pytest.mark.parametrize("feed", ["resident", seldom("stream")])
def test_xla_compiles_loop_once(command: Command, tmp_path: Path, feed):
    logged = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compiler=2"}
    options = (*OPTIONS, "--model=logistic", "--jit=loop", f"--feed={feed}", "--progress=off")
    outcome = command.run(f"--run_dir={tmp_path / 'run'}", *options, **logged)
    assert outcome.status == 0, outcome.said()
    assert outcome.err.count("Compilation of XLA executable time") == 1


# The run directory


def test_run_dir_files(run: Run):
    """A run directory has the documented files and no partial files."""
    found = {path.name for path in run.run_dir.iterdir()}
    expected = {"config.flags", "checkpoints", "best", "tensorboard", "metrics.jsonl", "clock.json"}
    assert found == {*expected, "result.json"}
    boards = {path.name for path in (run.run_dir / "tensorboard").iterdir()}
    assert boards == {"train", "validation", "test"}
    for board in boards:
        events = list((run.run_dir / "tensorboard" / board).glob("events.out.tfevents.*"))
        assert len(events) == 1
    assert not list(run.run_dir.rglob("*.part"))


def test_checkpoints_kept(run: Run):
    assert len(run.checkpoints) == 2
    assert len(list((run.run_dir / "best").glob("ckpt-*.npz"))) == 1


def test_config_flags_repeats_run(run: Run, warm: Warm, tmp_path: Path):
    flags, other = run.run_dir / "config.flags", tmp_path / "other"
    outcome = warm.run(f"--flagfile={flags}", f"--run_dir={other}")
    assert outcome.status == 0, outcome.said()
    again = Run(other, outcome)
    assert again.result["weights_sha256"] == run.result["weights_sha256"]
    # On a busy disk, a checkpoint within an epoch may be replaced by the next one.
    assert again.curves == run.curves and again.checkpoints[-1] == run.checkpoints[-1]
    written = (other / "config.flags").read_text()
    assert written.replace(str(other), str(run.run_dir)) == flags.read_text()


# metrics.jsonl


def test_metrics_rows(run: Run):
    """metrics.jsonl has a row for each log point, each epoch end by split, and the test split."""
    total = EPOCHS * PER_EPOCH
    ends = [PER_EPOCH * epoch for epoch in range(1, EPOCHS + 1)]
    assert [row["step"] for row in run.rows("train")] == sorted({*range(8, total, 8), *ends})
    assert [row["step"] for row in run.rows("validation")] == ends
    assert [row["step"] for row in run.rows("test")] == [total]
    for row in run.rows():
        assert row["epoch"] == math.ceil(row["step"] / PER_EPOCH)
        assert math.isfinite(row["loss"]) and row["loss"] > 0
        assert 0 <= row["accuracy"] <= 1


def test_examples_per_epoch(run: Run):
    for epoch in range(1, EPOCHS + 1):
        rows = [row for row in run.rows("train") if row["epoch"] == epoch]
        assert sum(row["examples"] for row in rows) == TRAIN
    assert {row["examples"] for row in run.rows("validation")} == {VALIDATION}
    assert {row["examples"] for row in run.rows("test")} == {TEST}


# result.json


def test_result_json(run: Run):
    result, validation = run.result, run.rows("validation")
    assert (result["step"], result["epoch"]) == (EPOCHS * PER_EPOCH, EPOCHS)
    assert result["stopped_early"] is False
    assert (result["skipped_steps"], result["restarts"]) == (0, 0)
    assert result["traces"] == {"train": 1, "evaluate_validation": 1, "evaluate_test": 1}
    assert result["train_seconds"] > 0 and result["steps_per_second"] > 0
    assert 0 < result["goodput"] <= 1
    assert len(bytes.fromhex(result["weights_sha256"])) == 32
    for split, row in (("validation", validation[-1]), ("test", run.rows("test")[-1])):
        expected = {name: row[name] for name in ("loss", "accuracy", "examples")}
        assert result[split] == expected
    best = max(validation, key=lambda row: row["accuracy"])  # the first of equal ones
    assert result["best"] == {
        "step": best["step"],
        "metric": "validation_accuracy",
        "value": best["accuracy"],
    }


def test_startup_seconds(run: Run):
    """The parts of the startup after the imports add up to `first_step_seconds`."""
    startup = run.result["startup_seconds"]
    imports, ours = ["python", "tensorflow"], ["engine", "devices", "data", "network", "trace"]
    assert list(startup) == [*imports, *ours, "restore", "step"]
    assert all(seconds >= 0 for seconds in startup.values())
    after = sum(seconds for part, seconds in startup.items() if part not in imports)
    assert run.result["first_step_seconds"] == pytest.approx(after)


def test_accuracy_after_training(run: Run):
    assert run.result["test"]["accuracy"] > 0.85


# Console output


def test_console_output(run: Run):
    """The console shows the table of layers and one line for each epoch."""
    lines = run.outcome.out.splitlines()
    (header,) = (i for i, line in enumerate(lines) if "output shape" in line)
    table = lines[header + 1 : header + 8]
    assert [line.split()[0] for line in table][-1] == "total"
    assert sum(int(line.split()[-1].replace(",", "")) for line in table[:-1]) == 21_386
    assert table[-1].endswith("21,386")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == [f"epoch {n}/{EPOCHS}" for n in range(1, 5)]
    for line, row in zip(epochs, run.rows("validation"), strict=True):
        assert f"validation loss {row['loss']:.4f}, accuracy {row['accuracy']:.2%}" in line


# Determinism


def test_seed_determines_bits(run: Run, warm: Warm, tmp_path: Path):
    same = warm.train(tmp_path / "same", *OPTIONS)
    assert same.result["weights_sha256"] == run.result["weights_sha256"]
    assert same.curves == run.curves
    other = warm.train(tmp_path / "other", *OPTIONS, "--seed=4")
    assert other.result["weights_sha256"] != run.result["weights_sha256"]


def test_feeds_give_same_bits(run: Run, warm: Warm, tmp_path: Path):
    assert "resident feed" in run.outcome.out  # the choice of auto
    stream = warm.train(tmp_path / "run", *OPTIONS, "--feed=stream")
    assert "stream feed" in stream.outcome.out
    assert stream.result["weights_sha256"] == run.result["weights_sha256"]
    assert stream.curves == run.curves


# Length


@pytest.fixture(scope="module")
def twenty(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run of 20 steps, of which 11 make an epoch."""
    run_dir = tmp_path_factory.mktemp("twenty") / "run"
    return warm.train(run_dir, "--train_steps=20", "--epochs=1", "--log_every=4")


def test_train_steps_within_epoch(twenty: Run):
    """A run can end inside an epoch, and is evaluated there."""
    assert (twenty.result["step"], twenty.result["epoch"]) == (20, 2)
    assert [row["step"] for row in twenty.rows("validation")] == [11, 20]
    assert [row["step"] for row in twenty.rows("test")] == [20]
    second = [row["examples"] for row in twenty.rows("train") if row["epoch"] == 2]
    assert sum(second) == 9 * 128
    assert twenty.result["best"]["step"] in (11, 20)


def test_two_devices_match_one(twenty: Run, warm: Warm, tmp_path: Path):
    options = "--train_steps=20", "--epochs=1", "--log_every=4", "--virtual_devices=2"
    two = warm.train(tmp_path / "run", *options)
    assert "2 virtual CPU devices" in two.outcome.out
    rows, expected = two.rows(), twenty.rows()
    assert len(rows) == len(expected) == 6 + 2 + 1
    for row, other in zip(rows, expected, strict=True):
        for name in ("step", "epoch", "split", "examples"):
            assert row[name] == other[name]
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert two.result["traces"] == twenty.result["traces"]


# Early stopping and the best weights


def test_early_stopping(early: Run):
    result, accuracies = early.result, [row["accuracy"] for row in early.rows("validation")]
    assert result["stopped_early"] is True
    assert result["epoch"] == len(accuracies) == result["best"]["step"] / PER_EPOCH + 2 < 9
    assert max(accuracies[-2:]) < result["best"]["value"] == max(accuracies)
    assert f"stopped early after epoch {result['epoch']}" in early.outcome.out


def test_restore_best(early: Run):
    best = early.result["best"]
    assert early.result["weights_step"] == best["step"] < early.result["step"]
    (row,) = (row for row in early.rows("validation") if row["step"] == best["step"])
    assert early.result["validation"] == {n: row[n] for n in ("loss", "accuracy", "examples")}
    assert early.result["validation"]["accuracy"] == best["value"]
    assert early.result["test"]["accuracy"] > 0.8


def test_best_by_train_loss(warm: Warm, tmp_path: Path):
    """Without a validation split, the training loss selects the best weights."""
    options = "--model=logistic", "--validation_split=0", "--epochs=3"
    run = warm.train(tmp_path / "run", *options)
    assert run.rows("validation") == [] and run.result["validation"] is None
    assert not (run.run_dir / "tensorboard" / "validation").exists()
    best = min(run.rows("train"), key=lambda row: row["loss"])
    assert best["examples"] == TRAIN + VALIDATION
    assert run.result["best"] == {
        "step": best["step"],
        "metric": "train_loss",
        "value": best["loss"],
    }


def test_final_weights_are_tested(warm: Warm, tmp_path: Path, command: Command):
    """Without `--restore_best`, the best epoch by training loss is not what is tested."""
    options = "--model=logistic", "--validation_split=0", "--epochs=3"
    spoiled = "--schedule=step", "--decay_steps=24", "--decay_rate=3000"
    run = warm.train(tmp_path / "run", *options, *spoiled)
    result = run.result
    assert result["best"]["step"] < result["step"] == result["weights_step"]
    outcome = command.run("--mode=evaluate", f"--run_dir={run.run_dir}")
    evaluated = json.loads(outcome.out.splitlines()[-1])
    assert evaluated["test"] == result["test"]
    outcome = command.run("--mode=evaluate", f"--run_dir={run.run_dir}", "--weights=best")
    assert json.loads(outcome.out.splitlines()[-1])["test"] != result["test"]


# --mode=evaluate


def test_evaluate_repeats_result(run: Run, command: Command):
    """`--mode=evaluate`, given only the run directory, prints the metrics of result.json."""
    before = (run.run_dir / "result.json").read_bytes()
    outcome = command.run("--mode=evaluate", f"--run_dir={run.run_dir}")
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    found = json.loads(outcome.out.splitlines()[-1])
    for split in ("validation", "test"):
        assert found[split] == run.result[split]
    assert (run.run_dir / "result.json").read_bytes() == before


def test_evaluate_best_weights(early: Run, warm: Warm):
    """`--mode=evaluate` uses the best weights if the run has `--restore_best`."""

    def evaluated(*arguments: str) -> dict:
        outcome = warm.run("--mode=evaluate", f"--run_dir={early.run_dir}", *arguments)
        assert outcome.status == 0, outcome.said()
        return json.loads(outcome.out.splitlines()[-1])

    best = evaluated()
    assert [best[split] == early.result[split] for split in ("validation", "test")] == [True] * 2
    newest = evaluated("--weights=newest")
    assert newest["validation"]["loss"] == early.rows("validation")[-1]["loss"]


def test_tilde_expands(command: Command, warm: Warm):
    """The engine expands ~ in paths, which shells do not do after an equals sign."""
    warm.train(command.home / "mine", "--model=logistic", "--epochs=1")
    outcome = warm.run("--mode=evaluate", "--run_dir=~/mine")
    assert outcome.status == 0, outcome.said()
