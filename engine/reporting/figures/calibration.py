"""Draws the reliability diagram: accuracy against confidence."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from engine.reporting.figures.style import BLUE, renders_png


@renders_png
def reliability(
    edges: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    *,
    error: float,
    title: str,
) -> Figure:
    """Draws the reliability diagram, and below it the number of predictions in each bin.

    Guo et al., 2017, "On Calibration of Modern Neural Networks".

    Args:
      edges: edges of the confidence bins, float [bins + 1].
      confidence: mean confidence of each bin, float [bins]; nan for an empty bin.
      accuracy: accuracy in each bin, float [bins]; nan for an empty bin.
      counts: number of predictions in each bin, int [bins].
      error: expected calibration error, from 0 to 1.
      title: title of the figure.
    """
    figure = Figure(figsize=(4.8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 100], [0, 100], "--", color="#888888", linewidth=1)
    full = counts > 0
    upper.plot(
        100 * confidence[full],
        100 * accuracy[full],
        "-o",
        color=BLUE,
    )
    upper.set_ylabel("accuracy, %")
    upper.set_ylim(0, 102)
    upper.set_title(f"{title}: expected error {100 * error:.2f}%")
    lower.bar(
        100 * edges[:-1],
        counts,
        100 * np.diff(edges),
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    lower.set_yscale("symlog", linthresh=1)
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lower.set_ylim(bottom=0)
    lower.set_ylabel("predictions")
    lower.set_xlabel("confidence, %")
    lower.set_xlim(0, 100)
    return figure
