"""Whether what the network holds for likely is as often right."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from figures.style import BLUE, drawn


@drawn
def reliability(
    edges: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    *,
    error: float,
    title: str,
) -> Figure:
    """The reliability diagram, and below it how many predictions each bin holds.

    Guo et al., 2017, "On Calibration of Modern Neural Networks".

    Args:
      edges: float [bins + 1], of the confidence.
      confidence: float [bins], the mean of each bin; nan for an empty one.
      accuracy: float [bins], likewise.
      counts: int [bins].
      error: the expected calibration error, in 0 to 1.
      title: above.
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
    upper.set_ylabel("right, %")
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
