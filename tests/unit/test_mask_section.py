"""Report section of segmentation; its scores compared with scikit-learn; its figures of masks."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import sklearn.metrics

from engine.reporting import mask_section
from engine.tasks.metrics import MeanIoU
from engine.tasks.segmentation import Segmentation
from tests.split_predictions import drawn_section, figure_names, first_table, split_predictions

BOTH = ["masks", "worst_masks"]
NAMES = ("background", "cat", "a class with a name of many words", "never")


def made(examples: int = 12, shape=(6, 5), ignored: int | None = None, dtype=np.int32, **options):
    """Returns random masks of 3 classes, a fifth wrong; a tenth of labels are `ignored`, if any."""
    random = np.random.default_rng(examples)
    target = random.integers(0, 3, (examples, *shape)).astype(dtype)
    wrong = random.random(target.shape) < 0.2
    predicted = np.where(wrong, random.integers(0, 3, target.shape), target).astype(np.int32)
    if ignored is not None:
        target[random.random(target.shape) < 0.1] = ignored
    task = Segmentation({"mean_iou": MeanIoU(3)}, ignore_label=ignored)
    outputs = predicted[..., 0] if shape[2:] == (1,) else predicted
    return split_predictions(task, target, mask=outputs, **options)


@pytest.mark.parametrize("ignored, dtype", [(None, np.int64), (255, np.uint8), (1, np.int32)])
@pytest.mark.parametrize("chunk", [1, 70, 1 << 22])
def test_scores_match_sklearn(monkeypatch, ignored, dtype, chunk):
    monkeypatch.setattr(mask_section, "_CHUNK", chunk)
    of = made(ignored=ignored, dtype=dtype)
    target, predicted = of.targets.astype(int), of.predicted["mask"]
    found = mask_section.mask_scores(of.targets, predicted, 3, ignored)
    valid = target != ignored
    known = {"labels": [0, 1, 2], "zero_division": np.nan}
    true, guessed = target[valid], predicted[valid]
    expected = sklearn.metrics.precision_recall_fscore_support(true, guessed, **known)
    for ours, theirs in zip(found.counts, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    jaccard = sklearn.metrics.jaccard_score(
        true, guessed, labels=[0, 1, 2], average=None, zero_division=0
    )
    np.testing.assert_allclose(found.iou, jaccard, rtol=1e-12)
    for index, mean in enumerate(found.by_example):
        true, guessed = target[index][valid[index]], predicted[index][valid[index]]
        present = np.union1d(true, guessed)
        each = sklearn.metrics.jaccard_score(
            true, guessed, labels=present, average=None, zero_division=0
        )
        assert mean == pytest.approx(each.mean(), rel=1e-12)


def test_section():
    of = made(names=NAMES, ignored=255, dtype=np.uint8)
    found = drawn_section(of)
    table = first_table(found)
    assert [row[0] for row in table] == [*NAMES, "mean of the classes"]
    assert table[3][1:] == ["-", "0.00%", "-", "-"]
    values = found.values["by_class"]
    assert table[1][1] == f"{values['cat']['iou']:.2%}" and figure_names(found) == BOTH
    assert sum(each["positions"] for each in values.values()) == (of.targets != 255).sum()
    rows = list(csv.DictReader(found.tables["test_losses.csv"].splitlines()))
    scores = mask_section.mask_scores(of.targets, of.predicted["mask"], 4, 255)
    assert float(rows[5]["mean_iou"]) == pytest.approx(scores.by_example[5], abs=1e-6)
    assert "fraction of the positions" in found.text


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_over_images(channels: int, dtype: type):
    """Masks are drawn over inputs that are images of 1 or 3 channels, also larger ones."""
    images = (np.random.default_rng(0).random((3, 12, 10, channels)) * 255).astype(dtype)
    assert figure_names(drawn_section(made(3, (6, 5, 1), inputs=images))) == BOTH


@pytest.mark.parametrize("shape, figures", [((9,), []), ((3, 4, 2), []), ((4, 4), BOTH)])
def test_other_shapes(shape: tuple[int, ...], figures: list[str]):
    found = drawn_section(made(5, shape))
    assert figure_names(found) == figures and len(first_table(found)) == 4


def test_one_example_all_ignored():
    of = made(1, ignored=7, losses=[np.nan])
    of.targets[:] = 7
    found = drawn_section(of)
    assert found.section.elements[0].startswith("- of 0 positions in 1 of 1 examples")
    assert {row[2] for row in first_table(found)[:-1]} == {"-"}
    assert found.tables["test_losses.csv"] == "number,loss,mean_iou\n0,nan,nan\n"


def test_all_of_one_class():
    of = made(2)
    of.targets[:], of.predicted["mask"][:] = 0, 0
    assert first_table(drawn_section(of)) == [
        ["0", "100.00%", "100.00%", "100.00%", "100.00%"],
        ["mean of the classes", "100.00%", "", "100.00%", "100.00%"],
    ]
