"""Figures: PNGs that are not blank, with bytes that depend only on the arguments."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from engine.reporting import figures
from engine.reporting.figures.grids import join_captions
from engine.reporting.figures.lines import Line, downsample, exponential_moving_average
from engine.reporting.figures.style import set_class_ticks

RANDOM = np.random.default_rng(0)


def images(count: int, channels: int = 1, dtype: str = "uint8", side: int = 8) -> np.ndarray:
    values = RANDOM.random((count, side, side, channels))
    return (values * 255).astype(np.uint8) if dtype == "uint8" else values.astype(np.float32)


def names(classes: int) -> list[str]:
    return [f"class {at}" for at in range(classes)]


def counts(classes: int) -> np.ndarray:
    return RANDOM.integers(0, 50, (classes, classes)) + np.diag(np.full(classes, 900))


def masks(seed: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, classes, (8, 6))


def line(points: int) -> figures.Line:
    return figures.Line(np.arange(points, dtype=float), RANDOM.random(points))


def panels(points: int) -> list[figures.Chart]:
    lines = {"train": line(points), "validation": line(max(1, points // 10))}
    return [figures.Chart("loss", "nats", lines, best=points / 2)]


DRAWN = {
    "grid": lambda: figures.grid(
        figures.CaptionedImages(images(7), list("abcdefg"), [2]), columns=3, title="seven"
    ),
    "one image": lambda: figures.grid(figures.CaptionedImages(images(1)), columns=5, title="one"),
    "colours": lambda: figures.grid(figures.CaptionedImages(images(2, 3)), columns=5, title="two"),
    "floats": lambda: figures.grid(
        figures.CaptionedImages(images(2, 1, "float32") - 7), columns=5, title="two"
    ),
    "two channels": lambda: figures.grid(
        figures.CaptionedImages(images(2, 2)), columns=5, title="two"
    ),
    "lines": lambda: figures.image_rows(
        [("one", figures.CaptionedImages(images(3))), ("none", figures.CaptionedImages(images(0)))],
        title="lines",
        margin=0.5,
    ),
    "2 classes": lambda: figures.confusion_matrix(counts(2), names(2), by_row=True, title="t"),
    "10 classes": lambda: figures.confusion_matrix(counts(10), names(10), by_row=False, title="t"),
    "100 classes": lambda: figures.confusion_matrix(
        counts(100), names(100), by_row=True, title="t"
    ),
    "100 classes, counts": lambda: figures.confusion_matrix(
        counts(100), names(100), by_row=False, title="t"
    ),
    "an empty row": lambda: figures.confusion_matrix(
        np.array([[3, 0], [0, 0]]), names(2), by_row=True, title="t"
    ),
    "curves": lambda: figures.charts(panels(500), x="epoch"),
    "many points": lambda: figures.charts(panels(20_000), x="epoch"),
    "validation sets": lambda: figures.charts(
        [figures.Chart("t", "u", {name: line(9) for name in ("train", *"abcdefg", "test")})],
        x="epoch",
    ),
    "few points": lambda: figures.charts(panels(3), x="epoch"),
    "no number": lambda: figures.charts(
        [figures.Chart("t", "u", {"train": figures.Line(np.arange(3.0), np.full(3, np.nan))})],
        x="epoch",
    ),
    "magnitudes": lambda: figures.charts(
        [figures.Chart("t", "u", {"train": line(5)}, logarithmic=True)], x="epoch"
    ),
    "balance": lambda: figures.class_balance(
        {"train": np.arange(10), "test": np.arange(10)}, names(10)
    ),
    "scores": lambda: figures.class_scores(
        np.array([1, np.nan]), np.array([0.5, np.nan]), np.array([0.7, np.nan]), names(2), title="t"
    ),
    "masks": lambda: figures.masks(
        [
            figures.MaskedExample(f"{n}", image, masks(n), masks(n + 1))
            for n, image in enumerate(images(3, 3, "float32", side=20))
        ],
        names(3),
        title="three",
    ),
    "masks alone": lambda: figures.masks(
        [figures.MaskedExample("a caption of more words than fit", None, masks(0), masks(1, 40))],
        names(41),
        title="one",
    ),
    "predictions and targets": lambda: figures.predictions_over_targets(
        [figures.Scatter(f"number {n}", RANDOM.random(9), RANDOM.random(9)) for n in range(3)],
        title="t",
    ),
    "no finite prediction": lambda: figures.predictions_over_targets(
        [figures.Scatter("", np.ones(2), np.array([np.nan, np.inf]))], title="t"
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
def test_figure_is_not_blank(which: str):
    picture = Image.open(io.BytesIO(DRAWN[which]()))
    assert picture.format == "PNG" and min(picture.size) > 60
    assert len(np.unique(np.asarray(picture.convert("L")))) > 5


def test_same_arguments_same_bytes():
    """The bytes of a figure do not depend on the user's Matplotlib settings."""
    for draw in (
        lambda: figures.grid(
            figures.CaptionedImages(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)),
            columns=1,
            title="t",
        ),
        lambda: figures.confusion_matrix(np.eye(3, dtype=int), names(3), by_row=True, title="t"),
    ):
        before = draw()
        with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 30}):
            assert draw() == before
        assert b"Software" not in before


@pytest.mark.parametrize("classes, named", [(10, 10), (100, 100), (1000, 112)])
def test_names_up_to_100_classes(classes: int, named: int):
    axes = Figure().add_subplot()
    set_class_ticks(axes, "y", names(classes))
    ticks = axes.get_yticks().tolist()
    assert len(ticks) == named
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"class {tick}" for tick in ticks]


def test_counts_shown_by_darkness():
    def drawn(of_class: np.ndarray, by_row: bool) -> bytes:  # all examples of each class are right
        return figures.confusion_matrix(np.diag(of_class), names(100), by_row=by_row, title="t")

    same, rising = np.full(100, 7), np.arange(1, 101)
    assert drawn(same, by_row=True) == drawn(rising, by_row=True)
    assert drawn(same, by_row=False) != drawn(rising, by_row=False)


def test_long_captions_are_split():
    assert join_captions([("4", "as 9", "97%"), ("3", "as 5", "9%")]) == ["4 as 9 97%", "3 as 5 9%"]
    assert join_captions([("willow tree", "as bicycle"), ("3", "as 5")]) == [
        "willow tree\nas bicycle",
        "3\nas 5",
    ]
    assert join_captions([]) == []


def test_multiline_captions_fit():
    def height(*captions: str) -> int:
        tiles = figures.CaptionedImages(images(2), captions)
        return Image.open(io.BytesIO(figures.grid(tiles, columns=1, title="t"))).height

    none, one, two = height(), height("a", "b"), height("a", "b\nc")
    assert none < one < two
    lines = [
        ("x", figures.CaptionedImages(images(1), ["a"])),
        ("y", figures.CaptionedImages(images(1), ["a\nb"])),
    ]
    drawn = figures.image_rows(lines, title="t", margin=0.2)
    assert Image.open(io.BytesIO(drawn)).height == two


def test_drawing_keeps_user_settings():
    before = dict(matplotlib.rcParams)
    figures.class_balance({"train": np.ones(2)}, names(2))
    assert dict(matplotlib.rcParams) == before


def test_thinned_curve():
    """A downsampled curve keeps every peak and the mean."""
    x = np.arange(50_003, dtype=float)
    y = RANDOM.random(len(x))
    y[31_337], y[4] = 9, -9
    raw, mean = downsample(Line(x, y))
    assert raw.y.max() == 9 and raw.y.min() == -9 and len(raw.y) == 2 * len(mean.y) == 2000
    assert (raw.y[::2] <= mean.y).all() and (mean.y <= raw.y[1::2]).all()
    assert abs(raw.x[raw.y.argmax()] - 31_337) < 51 and (np.diff(mean.x) > 0).all()
    assert mean.y.mean() == pytest.approx(y.mean(), abs=1e-3)


def test_smoothed_curve():
    y = np.concatenate([np.full(50, 3.0), np.full(500, 1.0)])
    found = exponential_moving_average(y, 20)
    assert found[0] == pytest.approx(3) and found[49] == pytest.approx(3)
    assert found[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(found[50:]) <= 0).all()
