"""Several validation sets by name, and evaluation on a part of a large one."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.choices import seldom
from tests.cli.command import HANG, Run, Warm, await_rows
from tests.sameness import differences

SETS = ("--validation_split=near=0.1,far=test[:90],rare=test[90:100]", "--test_split=test[100:]")
# 11 steps an epoch; an evaluation every 7, most of them inside an epoch.
THREE = (
    *SETS,
    *("--evaluate_every=7", "--patience=3", "--accumulate=2", "--ema=0.9", "--epochs=9"),
    *("--monitor=far_loss", "--log_every=3", "--checkpoint_every=5", "--evaluation_examples=60"),
)
EXAMPLES = {"near": 60, "far": 60, "rare": 10}


@pytest.fixture(scope="module")
def three(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with three validation sets, without interruption."""
    return warm.train(tmp_path_factory.mktemp("three") / "run", *THREE)


def test_rows_of_every_set(three: Run):
    """Every evaluation has a row for each set, of the same number of examples."""
    steps = [*range(7, 100, 7), 99]
    assert three.result["step"] == 99
    for name, examples in EXAMPLES.items():
        rows = three.rows(name)
        assert [row["step"] for row in rows] == steps
        assert {row["examples"] for row in rows} == {examples}
    assert three.rows("validation") == []
    boards = {path.name for path in (three.run_dir / "tensorboard").iterdir() if path.is_dir()}
    assert boards == {"train", *EXAMPLES, "test"}


def test_result(three: Run):
    """The scores of the first set are those of "validation"; the test is of the whole split."""
    result = three.result
    assert list(result["validation_sets"]) == list(EXAMPLES)
    assert result["validation"] == result["validation_sets"]["near"]
    for name, scores in result["validation_sets"].items():
        last = three.rows(name)[-1]
        assert scores == {key: last[key] for key in ("loss", "accuracy", "examples")}
    assert result["test"]["examples"] == 260 and result["evaluation_examples"] == 60
    best = min(three.rows("far")[:-1], key=lambda row: row["loss"])
    assert result["best"] == {"step": best["step"], "metric": "far_loss", "value": best["loss"]}
    assert {f"evaluate_{name}" for name in EXAMPLES} <= result["traces"].keys()


def test_printed(three: Run):
    out = three.outcome.out
    assert "train 1,293, near 60 of 144, far 60 of 90, rare 10, test 260;" in out
    (line,) = (line for line in out.splitlines() if line.startswith("step 7, epoch 1/9: "))
    parts = [line.index(f"{name} loss") for name in ("train", *EXAMPLES)]
    assert parts == sorted(parts) and "far_loss" in line


@pytest.mark.parametrize(
    ("number", "rows"),
    [
        (signal.SIGKILL, 40),
        (signal.SIGTERM, 17),
        seldom(signal.SIGKILL, 3),
        seldom(signal.SIGKILL, 70),
    ],
)
def test_interrupted(warm: Warm, three: Run, tmp_path: Path, number: signal.Signals, rows: int):
    run_dir = tmp_path / "run"
    with warm.started(f"--run_dir={run_dir}", *THREE) as process:
        await_rows(process, run_dir, rows)
        process.send_signal(number)
        process.wait(HANG)
    warm.train(run_dir, *THREE)
    assert differences(three.run_dir, run_dir) == []


def test_killed_between_sets(warm: Warm, three: Run, tmp_path: Path):
    """Rows of an evaluation that a kill cut short are written again, each once."""
    run_dir = tmp_path / "run"
    warm.train(run_dir, *THREE, "--train_steps=14")
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write(json.dumps(three.rows("near")[2]) + "\n")  # of step 21
    warm.train(run_dir, *THREE)
    assert differences(three.run_dir, run_dir) == []


@pytest.mark.parametrize(
    ("options", "by", "reason"),
    [
        (
            ("--monitor=rare_accuracy", "--min_delta=1"),
            "patience",
            "rare_accuracy did not improve by more than 1 for 3 evaluations",
        ),
        (
            ("--monitor=far_accuracy", "--stop_at=0.3", "--patience=-1", "--learning_rate=0.01"),
            "stop_at",
            "far_accuracy reached --stop_at=0.3",
        ),
        (
            ("--monitor=far_loss", "--baseline=0.001:20"),
            "baseline",
            "far_loss did not reach 0.001 by step 20, as --baseline requires",
        ),
    ],
)
def test_stops_by_any_set(warm: Warm, tmp_path: Path, options, by: str, reason: str):
    run = warm.train(tmp_path / "run", *THREE, "--model=logistic", *options)
    assert (run.result["stopped_by"], run.result["stop_reason"]) == (by, reason)
    assert run.result["step"] < 99


def test_plateau_by_any_set(warm: Warm, tmp_path: Path):
    options = ("--schedule=plateau", "--plateau_patience=1", "--decay_rate=0.5", "--patience=-1")
    options += ("--monitor=rare_accuracy", "--min_delta=1", "--model=logistic")
    run = warm.train(tmp_path / "run", *THREE, *options)
    assert "learning rate reduced to" in run.outcome.out


def test_on_devices(warm: Warm, tmp_path: Path):
    """On one and on two devices with shards, the curves, decisions and bits are the same."""
    one, two = (
        warm.train(
            tmp_path / str(n), *THREE, "--shards=2", "--strategy=cpu", f"--virtual_devices={n}"
        )
        for n in (1, 2)
    )
    assert "2 virtual CPU devices" in two.outcome.out
    assert differences(one.run_dir, two.run_dir) == []


def test_first_set_is_monitored(warm: Warm, tmp_path: Path):
    """The first set is the one that is monitored by default."""
    run = warm.train(tmp_path / "run", *SETS, "--model=logistic", "--epochs=2")
    assert run.result["best"]["metric"] == "near_accuracy"
    assert "evaluation_examples" not in run.result
    assert {row["examples"] for row in run.rows("far")} == {90}


def test_names_do_not_matter(warm: Warm, tmp_path: Path):
    """A set has the curves of the same set without a name, and of the same set among others."""
    common = ("--model=logistic", "--epochs=2", "--evaluation_examples=50")
    alone = warm.train(tmp_path / "alone", *common)
    named = warm.train(
        tmp_path / "named", *common, "--validation_split=a=0.1,b=test[:20]", "--test_split="
    )
    assert "validation_sets" not in alone.result
    assert named.result["weights_sha256"] == alone.result["weights_sha256"]
    rows = [{**row, "split": "validation"} for row in named.rows("a")]
    assert rows == alone.rows("validation")
    assert {row["examples"] for row in rows} == {50}


def test_evaluate_mode(warm: Warm, three: Run):
    """`--mode=evaluate` repeats the scores of all sets, or scores all of their examples."""

    def evaluated(*options: str) -> dict:
        outcome = warm.run("--mode=evaluate", f"--run_dir={three.run_dir}", *options)
        assert outcome.status == 0, outcome.said()
        return json.loads(outcome.out.splitlines()[-1])

    found = evaluated()
    for key in ("validation", "validation_sets", "test"):
        assert found[key] == three.result[key]
    assert list(found["tables"]) == [*EXAMPLES, "test"]
    assert (three.run_dir / "evaluation" / "far" / "report.html").exists()
    whole = evaluated("--evaluation_examples=0")["validation_sets"]
    assert {name: scores["examples"] for name, scores in whole.items()} == {
        "near": 144,
        "far": 90,
        "rare": 10,
    }
    split = evaluated("--split=test[:7]")
    assert split["test[:7]"]["examples"] == 7 and "validation_sets" not in split


def test_follow(warm: Warm, three: Run, tmp_path: Path):
    """`--follow` repeats the rows of each set for the checkpoints that are kept."""
    run_dir = shutil.copytree(three.run_dir, tmp_path / "run")
    outcome = warm.run("--mode=evaluate", "--follow", f"--run_dir={run_dir}")
    assert outcome.status == 0, outcome.said()
    lines = (run_dir / "evaluations" / "follow.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["split"] for row in rows} == {*EXAMPLES, "test"}
    assert [row for row in three.rows("far") if row["step"] == 99] == [
        row for row in rows if row["split"] == "far" and row["step"] == 99
    ]


def test_follow_refuses_name_of_set(warm: Warm, tmp_path: Path):
    options = ("--model=logistic", "--epochs=1", "--validation_split=a=0.1,other_a=0.1")
    run = warm.train(tmp_path / "run", *options)
    outcome = warm.run(
        "--mode=evaluate", "--follow", f"--run_dir={run.run_dir}", "--evaluation_name=other"
    )
    assert outcome.status == 2 and "--evaluation_name=other: other_a is a validation" in outcome.err


def test_report(warm: Warm, three: Run, tmp_path: Path):
    """The report has the scores of all sets, and says of how many examples they are."""
    run_dir = shutil.copytree(three.run_dir, tmp_path / "run")
    outcome = warm.run("--mode=report", f"--run_dir={run_dir}")
    assert outcome.status == 0, outcome.said()
    page = (run_dir / "report.html").read_text()
    assert "train[1293:] (60 of 144)" in page and "test[:90] (60 of 90)" in page
    for name in EXAMPLES:
        assert f"<td>{name}</td>" in page or f"<th>{name}</th>" in page
    assert "far: loss" in page  # the last points of the curves
    assert (run_dir / "test_predictions.csv").exists()


def test_report_without_test_split(warm: Warm, tmp_path: Path):
    """Without a test split, the predictions of the report are those of the first set."""
    options = ("--model=logistic", "--epochs=1", "--validation_split=a=0.1,b=0.2")
    run = warm.train(tmp_path / "run", *options, "--test_split=", "--report=true")
    table = (run.run_dir / "a_predictions.csv").read_text().splitlines()
    assert len(table) == 145 and run.result["test"] is None


def test_verify(warm: Warm, tmp_path: Path):
    outcome = warm.run(
        "--mode=verify", f"--run_dir={tmp_path / 'run'}", *SETS, "--model=logistic", "--jit=off"
    )
    assert outcome.status == 0 and "near" in outcome.out, outcome.said()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--validation_split=near=0.1,far=test[:90]", "--validation_split=near=0.1,far=test[:90]"),
        ("--evaluation_examples=61", "--evaluation_examples=61 (was 60)"),
        ("--monitor=near_loss", "--monitor=near_loss (was far_loss)"),
    ],
)
def test_fixed_on_resume(warm: Warm, three: Run, option: str, message: str):
    outcome = warm.run(f"--run_dir={three.run_dir}", *THREE, "--epochs=10", option)
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validation_split=a=0.1,a=0.2",), "names a twice"),
        (("--validation_split=train=0.1",), "'train' is not a valid name"),
        (("--validation_split=a=0.1,0.2",), "give each set as NAME=SPLIT"),
        (("--validation_split=a=0.6,b=0.6",), "=b=0.6: of the 574 examples in train of digits"),
        (("--validation_split=a=0.1,b=nope",), "--validation_split=b=nope: digits has no split"),
        (("--validation_split=a=0.1,b=train[:9]",), "=b=train[:9]: shares examples with"),
        (("--validation_split=a=0.1,b=test[:9]",), "--test_split=auto: shares examples with"),
        (("--validation_split=a=0.1", "--monitor=b_loss"), "--monitor=b_loss: choose one of auto"),
        (("--validation_split=a=0.1", "--monitor=validation_loss"), "a_loss, a_accuracy, train_"),
    ],
)
def test_refuses(warm: Warm, tmp_path: Path, options: tuple[str, ...], message: str):
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", *options)
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
