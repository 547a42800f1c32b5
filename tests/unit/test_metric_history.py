"""Charts of a run's metrics from the rows of metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.reporting import metric_history
from engine.tasks.classification import Classification
from engine.tasks.metrics import MeanIoU
from engine.tasks.regression import Regression
from engine.tasks.task import Task

ROWS = [
    {"step": 10, "epoch": 1, "split": "train", "loss": 2.0, "accuracy": 0.5, "learning_rate": 0.1},
    {"step": 10, "epoch": 1, "split": "validation", "loss": 1.5, "accuracy": 0.6, "examples": 9},
    {"step": 20, "epoch": 2, "split": "train", "loss": None, "accuracy": 0.7, "learning_rate": 0.2},
    {"step": 20, "epoch": 2, "split": "test", "loss": 1.0, "accuracy": 0.8, "examples": 9},
]


def written(tmp_path: Path, tail: str = "") -> str:
    text = "".join(json.dumps(row) + "\n" for row in ROWS) + tail
    (tmp_path / "metrics.jsonl").write_text(text)
    return str(tmp_path)


def test_reads_whole_rows(tmp_path: Path):
    assert metric_history.rows(written(tmp_path, '{"step": 30, "spl')) == ROWS
    assert metric_history.rows(str(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("line", ["{", "\xff\x00", "[1]", ""])
def test_damaged_line(tmp_path: Path, line: str):
    """A damaged line that is complete is named."""
    run_dir = written(tmp_path, f"{line}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 5: is not .*; remove the line"):
        metric_history.rows(run_dir)


def test_learning_curves():
    accuracy, loss = metric_history.metric_charts(ROWS, Classification(), 10, 20)
    assert (accuracy.unit, loss.unit) == ("accuracy, %", "cross-entropy, nats")
    assert (accuracy.title, loss.title) == ("accuracy", "loss")
    assert list(accuracy.lines) == ["train", "validation"] and accuracy.best == 2
    np.testing.assert_allclose(accuracy.lines["train"].x, [1, 2])
    np.testing.assert_allclose(accuracy.lines["train"].y, [50, 70])
    np.testing.assert_allclose(loss.lines["train"].y, [2, np.nan])
    np.testing.assert_allclose(loss.lines["validation"].y, [1.5])


def test_one_chart_of_all_sets():
    """A chart has a curve for training and one for each validation set, in their order."""
    rows = [
        {"step": step, "split": split, "loss": step / 10, "auc": 0.5}
        for step in (10, 20)
        for split in ("train", "noisy", "clean")
    ]
    loss, _ = metric_history.metric_charts([*rows, ROWS[-1]], Task(), 10, None)
    assert list(loss.lines) == ["train", "noisy", "clean"]
    np.testing.assert_allclose(loss.lines["clean"].y, [1, 2])


def test_curves_of_any_metric():
    """The metric determines whether its curve is in percent, the task the unit of the loss."""
    task = Regression({"iou": MeanIoU(3)}, "huber")
    rows = [{"step": 10, "split": "train", "loss": 2.0, "iou": 0.5, "accuracy": 0.5}]
    iou, loss = metric_history.metric_charts(rows, task, 10, None)
    assert (iou.unit, loss.unit) == ("iou, %", "huber")
    np.testing.assert_allclose(iou.lines["train"].y, [50])


def test_learning_rate_curve():
    (rate,) = metric_history.step_charts(ROWS, 10)
    assert rate.title == "learning rate"
    np.testing.assert_allclose(rate.lines["train"].y, [0.1, 0.2])


def test_no_rows_no_charts():
    assert (
        metric_history.metric_charts([], Task(), 10, None) == []
        and metric_history.step_charts([], 10) == []
    )
