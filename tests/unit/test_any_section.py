"""Report sections: the one that fits any task, and ignored labels in those of other tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.reporting import data_section
from engine.tasks.classification import Classification
from engine.tasks.task import Task
from pipelines import fitted
from pipelines.preprocessing import preprocessing
from tests.nested import source_of
from tests.split_predictions import drawn_section, figure_names, first_table, split_predictions

RANDOM = np.random.default_rng(7)


def test_losses():
    losses = RANDOM.random(40)
    of = split_predictions(Task(), np.arange(40), losses, outputs=RANDOM.random((40, 3)))
    found = drawn_section(of)
    (row,) = first_table(found)
    assert row[0] == f"{losses.min():.4g}" and row[2] == f"{np.median(losses):.4g}"
    largest = found.section.elements[1].rows
    assert [int(each[0]) for each in largest] == np.argsort(-losses)[:25].tolist()
    assert len(found.tables["test_losses.csv"].splitlines()) == 41


def test_losses_that_are_not_finite():
    """Non-finite losses count as the largest, and the quantiles leave them out."""
    losses = [1.0, np.nan, 3.0, np.inf]
    images = RANDOM.integers(0, 255, (4, 8, 8, 2)).astype(np.uint8)
    found = drawn_section(split_predictions(Task(), np.arange(4), losses, inputs=images))
    assert first_table(found)[0][:3] == ["1", "1.5", "2"]
    assert "2 are not finite" in found.section.elements[0].caption
    assert [each[0] for each in found.section.elements[1].rows] == ["1", "3", "2", "0"]
    assert figure_names(found) == ["largest_losses"]
    found = drawn_section(split_predictions(Task(), np.arange(1), [np.nan]))
    assert first_table(found) == [["-"] * 6]


@pytest.mark.parametrize("kept", [30, 1, 0])
def test_classification_without_ignored_labels(kept: int):
    labels = np.full(40, 255, np.int32)
    labels[40 - kept :] = RANDOM.integers(0, 3, kept)
    probabilities = RANDOM.dirichlet(np.ones(3), 40).astype(np.float32)
    of = split_predictions(
        Classification(ignore_label=255),
        labels,
        inputs=RANDOM.integers(0, 255, (40, 8, 8, 1)).astype(np.uint8),
        names=("a", "b", "c"),
        probabilities=probabilities,
    )
    read: list[int] = []
    images = of.inputs

    def remembered(indices: np.ndarray) -> np.ndarray:
        read.extend(indices.tolist())
        return images(indices)

    found = drawn_section(of._replace(inputs=remembered))
    if kept:
        assert read and min(read) >= 40 - kept  # only images with labels that count are shown
        correct = (probabilities.argmax(1) == labels).sum()
        assert found.section.elements[0].startswith(f"{correct:,} of {kept} are correct")
        assert np.sum(found.values["confusion"]) == kept
        assert len(found.tables["test_predictions.csv"].splitlines()) == 41


@pytest.mark.parametrize("shape", [(), (8, 8), (3,)])
def test_data_with_other_labels_than_classes(shape: tuple[int, ...], tmp_path):
    """Figures of classes are drawn only for scalar labels, of which ignored ones have no name."""
    targets = RANDOM.integers(0, 3, (20, *shape)).astype(np.int32)
    targets[:2] = 255
    images = RANDOM.integers(0, 255, (20, 8, 8, 1)).astype(np.uint8)
    source = dataclasses.replace(source_of(images, targets), class_names=("a", "b", "c"))
    section = data_section.section(source, str(tmp_path))
    names = {each.name for each in section.elements if hasattr(each, "png") and each.png}
    assert names == (
        {"samples_train", "samples_by_class", "class_balance"} if shape == () else set()
    )


@pytest.mark.parametrize("scale", ["unit", "none", "standardize"])
def test_pixels_as_the_network_gets_them(scale: str, tmp_path):
    """The table of pixels has the moments of the images as stored, and after preprocessing."""
    images = RANDOM.integers(0, 255, (20, 8, 8, 1)).astype(np.uint8)
    source = source_of(images, np.zeros(20, np.int32))
    prepared = preprocessing(scale, source.decoded[0])
    source = fitted(dataclasses.replace(source, preprocess=prepared), str(tmp_path))
    (row,) = data_section.section(source, str(tmp_path)).elements[1].rows
    mean, deviation = images.mean(), images.std()
    seen = {"unit": (mean / 255, deviation / 255), "none": (mean, deviation)}
    expected = [mean, deviation, *seen.get(scale, (0, 1))]
    assert [float(each) for each in row[3:7]] == pytest.approx(expected, abs=1e-3)
