"""Measures how long the report's largest figures of each type take to draw.

    python -m benchmarks.drawing

Draws each type of figure five times for 10 classes with grayscale images of 28x28 pixels, and five
times for 100 classes with color images of 96x96. The exit status is 1 if a median is over two
seconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from engine.reporting import figures

MOST = 2.0  # seconds
TIMES = 5
POINTS = 100_000  # of a curve


def all_of(classes: int, shape: tuple[int, int, int]) -> dict[str, Callable[[], bytes]]:
    """Returns functions that draw a figure and return the PNG, by the name of the figure.

    Args:
      classes: number of classes.
      shape: height, width and channels of the images.
    """
    chance = np.random.default_rng(0)
    names = [f"class number {label}" for label in range(classes)]
    labels = chance.integers(0, classes, 10_000)
    predicted = np.where(chance.random(10_000) < 0.9, labels, chance.integers(0, classes, 10_000))
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    counts = counts.reshape(classes, classes)
    of_class = np.bincount(labels, minlength=classes)
    scores = chance.random((3, classes))
    images = chance.integers(0, 256, (100, *shape), np.uint8)
    tiles = figures.CaptionedImages(
        images, [f"class {label}, 97%" for label in range(100)], {3, 50}
    )
    lines = [(name, figures.CaptionedImages(images[:10])) for name in names[:30]]
    x = np.linspace(0, 100, POINTS)
    curve = figures.Line(x, np.exp(-x / 10) + chance.random(POINTS))
    panels = [
        figures.Chart(name, name, {"train": curve, "validation": curve}, 50.0, name == "norm")
        for name in ("accuracy", "loss", "rate", "norm", "ratio", "speed")
    ]
    edges = np.linspace(0, 1, 16)
    bins = np.full(15, 100)
    return {
        "charts": lambda: figures.charts(panels, x="epoch"),
        "class balance": lambda: figures.class_balance(
            {"train": of_class, "validation": of_class, "test": of_class}, names
        ),
        "class scores": lambda: figures.class_scores(
            scores[0], scores[1], scores[2], names, title="Scores"
        ),
        "confusion, counts": lambda: figures.confusion_matrix(
            counts, names, by_row=False, title="Counts"
        ),
        "confusion, rows": lambda: figures.confusion_matrix(
            counts, names, by_row=True, title="By row"
        ),
        "grid of 100": lambda: figures.grid(tiles, columns=10, title="Pictures"),
        "lines of images": lambda: figures.image_rows(lines, title="Lines", margin=1.5),
        "reliability": lambda: figures.reliability(
            edges, edges[1:], edges[1:], bins, error=0.01, title="Calibration"
        ),
    }


def main() -> int:
    """Prints the drawing times; returns 1 if a median is over two seconds, otherwise 0."""
    slow = []
    print("| figure | classes | images | median, s | longest, s |\n|---|---|---|---|---|")
    for classes, shape in ((10, (28, 28, 1)), (100, (96, 96, 3))):
        for name, draw in all_of(classes, shape).items():
            seconds = []
            for _ in range(TIMES):
                started = time.perf_counter()
                draw()
                seconds.append(time.perf_counter() - started)
            median = statistics.median(seconds)
            size = "x".join(map(str, shape))
            print(f"| {name} | {classes} | {size} | {median:.2f} | {max(seconds):.2f} |")
            if median > MOST:
                slow.append(f"{name}, {classes} classes: {median:.2f} s")
    for each in slow:
        print(f"FAIL {each}, at most {MOST:g} s are wanted", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
