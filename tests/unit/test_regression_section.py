"""Report section of regression; errors compared with scikit-learn; targets of any shape."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import sklearn.metrics

from engine.reporting import regression_section
from engine.reporting.regression_section import errors
from engine.tasks.regression import Regression
from tests.split_predictions import drawn_section, figure_names, first_table, split_predictions

RANDOM = np.random.default_rng(3)
FIGURES = ["predictions_over_targets"]


def numbers(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    targets = RANDOM.normal(5, 2, shape).astype(np.float32)
    return targets, targets + RANDOM.normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [7, 1 << 22])
def test_errors_match_sklearn(monkeypatch: pytest.MonkeyPatch, chunk: int):
    monkeypatch.setattr(regression_section, "_CHUNK", chunk)
    targets, predicted = numbers(200)
    found = errors(targets, predicted)
    assert found.mean_absolute_error == pytest.approx(
        sklearn.metrics.mean_absolute_error(targets, predicted)
    )
    assert found.root_mean_squared_error == pytest.approx(
        sklearn.metrics.root_mean_squared_error(targets, predicted)
    )
    assert found.r2 == pytest.approx(sklearn.metrics.r2_score(targets, predicted), abs=1e-6)
    assert found.target_deviation == pytest.approx(targets.std(), rel=1e-5)


def test_one_number():
    """Targets [n] are compared with outputs [n, 1] element by element."""
    targets, predicted = numbers(6000)
    of = split_predictions(Regression(), targets, predictions=predicted[:, None])
    found = drawn_section(of)
    (row,) = first_table(found)
    assert row[1] == f"{np.abs(targets - predicted).mean():.4g}" and figure_names(found) == FIGURES
    assert found.values["errors"]["0"]["r2"] == errors(targets, predicted).r2
    rows = list(csv.reader(found.tables["test_predictions.csv"].splitlines()))
    assert rows[0] == ["number", "target", "prediction"] and len(rows) == 6001
    assert float(rows[7][1]) == pytest.approx(targets[6], rel=1e-5)


def test_several_numbers():
    targets, predicted = numbers(50, 2, 3)
    found = drawn_section(split_predictions(Regression(), targets, predictions=predicted))
    table = first_table(found)
    assert [row[0] for row in table] == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2", "all"]
    assert table[4][1] == f"{errors(targets[:, 1, 1], predicted[:, 1, 1])[0]:.4g}"
    assert table[-1][3] == f"{errors(targets, predicted).r2:.4f}"
    assert "root mean squared error" in found.text


def test_many_numbers():
    """Errors of an image's pixels are summarized in one row; the CSV has only the first pixels."""
    targets, predicted = numbers(9, 8, 8, 1)
    images = RANDOM.integers(0, 255, (9, 8, 8, 1)).astype(np.uint8)
    found = drawn_section(
        split_predictions(Regression(), targets, inputs=images, predictions=predicted)
    )
    assert [row[0] for row in first_table(found)] == ["all"]
    assert figure_names(found) == [*FIGURES, "largest_losses"]
    assert len(found.tables["test_predictions.csv"].splitlines()[0].split('"')) == 1 + 2 * 32


def test_equal_targets():
    assert np.isnan(errors(np.full(7001, 0.1), np.zeros(7001)).r2)
    targets = np.full(7, 3, np.int32)
    predicted = np.full((7, 1), 3, np.float32)
    found = drawn_section(split_predictions(Regression(), targets, predictions=predicted))
    assert first_table(found)[0][1:] == ["0", "0", "-", "3", "0"]
    one = split_predictions(Regression(), targets[:1], predictions=predicted[:1] + 1)
    assert first_table(drawn_section(one))[0][1:] == ["1", "1", "-", "3", "0"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_diverged_weights(bad: float):
    targets, predicted = numbers(4)
    predicted[:] = bad
    of = split_predictions(Regression(), targets, np.full(4, bad), predictions=predicted[:, None])
    row = first_table(drawn_section(of))[0]
    assert row[1] in ("nan", "inf", "3e+38")
