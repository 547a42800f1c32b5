"""Tests of the report: report.html, plots/ and CSV files of predictions."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.choices import seldom
from tests.cli.command import Run, Warm

OPTIONS = ("--report", "--model=logistic", "--epochs=3", "--learning_rate=0.01", "--log_every=7")
OF_DATA = {"samples_train", "samples_by_class", "class_balance"}
OF_PREDICTIONS = {
    *("confusion_counts", "confusion_rows", "class_scores", "confused_pairs", "mistakes"),
    *("calibration", "predictions"),
}
TEST = 360


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run with a report."""
    return warm.train(tmp_path_factory.mktemp("report") / "run", *OPTIONS)


def plots(run_dir: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (run_dir / "plots").glob("*.png")}


def test_report_after_training(run: Run):
    assert set(plots(run.run_dir)) == OF_DATA | OF_PREDICTIONS | {"curves", "steps"}
    for name, content in plots(run.run_dir).items():
        assert Image.open(io.BytesIO(content)).size[0] > 200, name
    assert re.search(r"^report .*report\.html: 12 figures", run.outcome.out, re.MULTILINE)
    assert run.outcome.out.splitlines()[-1].startswith("result ")


def test_page_is_self_contained(run: Run):
    text = (run.run_dir / "report.html").read_text()
    assert text.count("<img ") == 12
    sources = re.findall(r"(?:src|href)=\"([^\"]{0,40})", text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    result = run.result
    for written in (
        f"{result['test']['accuracy']:.2%}",
        f"{result['test']['loss']:.4f}",
        result["weights_sha256"],
        "--model=logistic",
        "(1293, 8, 8, 1)",
    ):
        assert written in text, written


def test_predictions_table(run: Run):
    rows = list(csv.DictReader((run.run_dir / "test_predictions.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(TEST))
    right = sum(int(row["right"]) for row in rows)
    assert right == round(run.result["test"]["accuracy"] * TEST)
    assert all((row["label"] == row["predicted"]) == (row["right"] == "1") for row in rows)


def test_report_is_deterministic(run: Run, warm: Warm):
    names = ("report.html", "test_predictions.csv")
    before = plots(run.run_dir), [(run.run_dir / name).read_bytes() for name in names]
    outcome = warm.run("--mode=report", f"--run_dir={run.run_dir}")
    assert outcome.status == 0, outcome.said()
    after = plots(run.run_dir), [(run.run_dir / name).read_bytes() for name in names]
    assert after[0] == before[0]
    # The page names the checkpoint of the weights.
    assert after[1][1] == before[1][1] and len(after[1][0]) == pytest.approx(
        len(before[1][0]), rel=0.01
    )
    again = warm.run("--mode=report", f"--run_dir={run.run_dir}")
    assert again.status == 0 and (run.run_dir / names[0]).read_bytes() == after[1][0]


def test_report_of_unfinished_run(warm: Warm, run: Run, tmp_path: Path):
    for name in ("config.flags", "checkpoints", "metrics.jsonl"):
        (tmp_path / name).symlink_to(run.run_dir / name)
    outcome = warm.run("--mode=report", f"--run_dir={tmp_path}", "--weights=newest")
    assert outcome.status == 0, outcome.said()
    assert "has not ended" in (tmp_path / "report.html").read_text()


def test_report_before_training(warm: Warm, tmp_path: Path):
    """Before training, the report shows the data set only, and a later training is possible."""
    outcome = warm.run("--mode=report", f"--run_dir={tmp_path / 'none'}", "--model=logistic")
    assert outcome.status == 0, outcome.said()
    assert set(plots(tmp_path / "none")) == OF_DATA
    assert "nothing is trained yet" in (tmp_path / "none" / "report.html").read_text()
    trained = warm.run(f"--run_dir={tmp_path / 'none'}", "--model=logistic", "--epochs=1")
    assert trained.status == 0, trained.said()  # the report does not prevent a later training


def test_report_on_validation(warm: Warm, tmp_path: Path):
    options = "--report", "--model=logistic", "--epochs=1", "--test_split="
    run = warm.train(tmp_path / "run", *options)
    assert (run.run_dir / "validation_predictions.csv").exists()
    assert "Predictions on validation" in (run.run_dir / "report.html").read_text()


def test_report_without_held_out_data(warm: Warm, tmp_path: Path):
    options = "--report", "--model=logistic", "--epochs=1", "--test_split=", "--validation_split=0"
    run = warm.train(tmp_path / "run", *options)
    assert set(plots(run.run_dir)) == OF_DATA | {"curves", "steps"}


@pytest.mark.parametrize("replicas", [2, seldom(3)])
def test_report_on_several_devices(warm: Warm, tmp_path: Path, replicas: int):
    options = (
        "--report",
        "--model=logistic",
        "--epochs=2",
        f"--virtual_devices={replicas}",
        "--ema=0.9",
    )
    run = warm.train(tmp_path / "run", *options)
    rows = list(csv.DictReader((run.run_dir / "test_predictions.csv").read_text().splitlines()))
    assert sum(int(row["right"]) for row in rows) == round(run.result["test"]["accuracy"] * TEST)


def test_evaluate_split_tables(run: Run, warm: Warm):
    """`--mode=evaluate` accepts any split, and writes tables, figures and a report for it."""
    asked = "--mode=evaluate", f"--run_dir={run.run_dir}", "--split=train[100:164]"
    outcome = warm.run(*asked)
    assert outcome.status == 0, outcome.said()
    found = json.loads(outcome.out.splitlines()[-1])
    assert found["train[100:164]"]["examples"] == 64
    tables = found["tables"]["train[100:164]"]
    confusion = np.array(tables["confusion"])
    assert confusion.sum() == 64 and len(tables["by_class"]) == 10
    assert np.trace(confusion) == round(found["train[100:164]"]["accuracy"] * 64)
    folder = run.run_dir / "evaluation" / "train_100_164"
    assert set(plots(folder)) == OF_PREDICTIONS and (folder / "report.html").exists()
    assert "mean of the classes" in outcome.out
