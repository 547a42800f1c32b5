"""Report section of multi-label classification; its scores compared with scikit-learn."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.reporting.scores import by_label, curve_areas
from engine.tasks.multi_label import MultiLabel
from tests.split_predictions import drawn_section, figure_names, first_table, split_predictions

NAMES = ("a", "b", "a label with a name of many words, $5 <b>", "never")


def made(examples: int = 300, labels: int = 4, digits: int = 2, names=NAMES, **options):
    """Returns random predictions, with ties; the last label is never true."""
    random = np.random.default_rng(examples)
    targets = (random.random((examples, labels)) < 0.4).astype(np.int32)
    targets[:, -1] = 0
    probabilities = np.clip(0.3 * targets + 0.6 * random.random((examples, labels)), 0, 1)
    probabilities = np.round(probabilities, digits).astype(np.float32)
    return split_predictions(
        MultiLabel(),
        targets,
        names=names,
        probabilities=probabilities,
        predicted=probabilities > 0.5,
        **options,
    )


def test_scores_match_sklearn():
    of = made()
    found = by_label(of.targets > 0, of.predicted["predicted"])
    expected = sklearn.metrics.precision_recall_fscore_support(
        of.targets, of.predicted["predicted"], zero_division=np.nan
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_areas_match_sklearn(pairs: list[tuple[bool, int]]):
    """The areas under the ROC and precision-recall curves match, also with ties."""
    true, values = np.array([each[0] for each in pairs]), np.array([each[1] / 5 for each in pairs])
    roc, average = curve_areas(true, values)
    if true.any():
        expected = sklearn.metrics.average_precision_score(true, values)
        assert average == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isnan(average)
    if true.any() and not true.all():
        assert roc == pytest.approx(sklearn.metrics.roc_auc_score(true, values), abs=1e-9)
    else:
        assert np.isnan(roc)


def test_section():
    of = made()
    found = drawn_section(of)
    table = first_table(found)
    assert [row[0] for row in table] == [*NAMES, "mean of the labels"]
    assert table[3][1:] == [
        "0",
        "0.00%" if of.predicted["predicted"][:, 3].any() else "-",
        "-",
        table[3][4],
        "-",
        "-",
    ]
    scores = found.values["by_label"]["b"]
    assert scores["positives"] == of.targets[:, 1].sum()
    assert table[1][5] == f"{scores['auc']:.4f}"
    assert figure_names(found) == ["label_scores"] and "average precision" in found.text
    rows = list(csv.reader(found.tables["test_predictions.csv"].splitlines()))
    assert rows[0][:3] == ["number", "target a", "target b"] and rows[0][5] == "probability a"
    assert [int(cell) for cell in rows[8][1:5]] == of.targets[7].tolist()


def test_many_labels():
    found = drawn_section(made(20, 100, names=()))
    assert not found.text and first_table(found)[99][0] == "99"
    assert len(found.tables["test_predictions.csv"].splitlines()[0].split(",")) == 1 + 2 * 64


def test_one_example_and_nan():
    found = drawn_section(made(1, inputs=np.zeros((1, 8, 8, 3), np.uint8)))
    assert len(first_table(found)) == 5
    of = made(9, losses=np.full(9, np.nan))
    of.predicted["probabilities"][:] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn_section(of)
    assert first_table(found)[0][5:] == ["-", "-"]


def test_labels_that_all_have():
    ones = np.ones((5, 2), np.float32)
    of = split_predictions(MultiLabel(), ones, probabilities=ones, predicted=ones > 0)
    assert first_table(drawn_section(of))[0][1:] == [
        *("5", "100.00%", "100.00%", "100.00%", "-", "1.0000")
    ]
