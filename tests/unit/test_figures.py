"""Figures: pictures whatever they are given, and the same bytes for the same arguments."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

import figures
from figures.lines import smoothed

RANDOM = np.random.default_rng(0)


def images(count: int, channels: int = 1, dtype: str = "uint8", side: int = 8) -> np.ndarray:
    values = RANDOM.random((count, side, side, channels))
    return (values * 255).astype(np.uint8) if dtype == "uint8" else values.astype(np.float32)


def names(classes: int) -> list[str]:
    return [f"class {at}" for at in range(classes)]


def counts(classes: int) -> np.ndarray:
    return RANDOM.integers(0, 50, (classes, classes)) + np.diag(np.full(classes, 900))


def line(points: int) -> figures.Line:
    return figures.Line(np.arange(points, dtype=float), RANDOM.random(points))


def panels(points: int) -> list[figures.Panel]:
    lines = {"train": line(points), "validation": line(max(1, points // 10))}
    return [figures.Panel("loss", "nats", lines, best=points / 2)]


DRAWN = {
    "grid": lambda: figures.grid(
        figures.Tiles(images(7), list("abcdefg"), [2]), columns=3, title="seven"
    ),
    "one image": lambda: figures.grid(figures.Tiles(images(1)), columns=5, title="one"),
    "colours": lambda: figures.grid(figures.Tiles(images(2, 3)), columns=5, title="two"),
    "floats": lambda: figures.grid(
        figures.Tiles(images(2, 1, "float32") - 7), columns=5, title="two"
    ),
    "two channels": lambda: figures.grid(figures.Tiles(images(2, 2)), columns=5, title="two"),
    "lines": lambda: figures.lines_of_images(
        [("one", figures.Tiles(images(3))), ("none", figures.Tiles(images(0)))],
        title="lines",
        margin=0.5,
    ),
    "2 classes": lambda: figures.confusion_matrix(counts(2), names(2), by_row=True, title="t"),
    "10 classes": lambda: figures.confusion_matrix(counts(10), names(10), by_row=False, title="t"),
    "100 classes": lambda: figures.confusion_matrix(
        counts(100), names(100), by_row=True, title="t"
    ),
    "an empty row": lambda: figures.confusion_matrix(
        np.array([[3, 0], [0, 0]]), names(2), by_row=True, title="t"
    ),
    "curves": lambda: figures.charts(panels(500), x="epoch"),
    "few points": lambda: figures.charts(panels(3), x="epoch"),
    "no number": lambda: figures.charts(
        [figures.Panel("t", "u", {"train": figures.Line(np.arange(3.0), np.full(3, np.nan))})],
        x="epoch",
    ),
    "magnitudes": lambda: figures.charts(
        [figures.Panel("t", "u", {"train": line(5)}, logarithmic=True)], x="epoch"
    ),
    "balance": lambda: figures.class_balance(
        {"train": np.arange(10), "test": np.arange(10)}, names(10)
    ),
    "scores": lambda: figures.class_scores(
        np.array([1, np.nan]), np.array([0.5, np.nan]), np.array([0.7, np.nan]), names(2), title="t"
    ),
    "reliability": lambda: figures.reliability(
        np.linspace(0, 1, 4),
        np.array([np.nan, 0.5, 0.9]),
        np.array([np.nan, 0.4, 1.0]),
        np.array([0, 3, 900]),
        error=0.1,
        title="t",
    ),
    "a name in dollars": lambda: figures.class_balance({"train": np.ones(2)}, ["$5", "$x_1"]),
}


@pytest.mark.parametrize("which", DRAWN)
def test_a_figure_is_a_picture_with_something_on_it(which: str):
    picture = Image.open(io.BytesIO(DRAWN[which]()))
    assert picture.format == "PNG" and min(picture.size) > 60
    assert len(np.unique(np.asarray(picture.convert("L")))) > 5


def test_the_same_arguments_give_the_same_bytes_whatever_the_user_has_set():
    for draw in (
        lambda: figures.grid(
            figures.Tiles(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)),
            columns=1,
            title="t",
        ),
        lambda: figures.confusion_matrix(np.eye(3, dtype=int), names(3), by_row=True, title="t"),
    ):
        before = draw()
        with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 30}):
            assert draw() == before
        assert b"Software" not in before


def test_drawing_leaves_the_users_settings_as_they_were():
    before = dict(matplotlib.rcParams)
    figures.class_balance({"train": np.ones(2)}, names(2))
    assert dict(matplotlib.rcParams) == before


def test_a_smoothed_curve_begins_where_the_curve_does_and_ends_near_its_level():
    y = np.concatenate([np.full(50, 3.0), np.full(500, 1.0)])
    found = smoothed(y, 20)
    assert found[0] == pytest.approx(3) and found[49] == pytest.approx(3)
    assert found[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(found[50:]) <= 0).all()
