"""Draws figures from arrays; the drawing functions return the bytes of a PNG.

The same arguments give bitwise identical PNGs. Imports no other package of the project.
"""

from engine.reporting.figures.classification import (
    class_balance,
    class_scores,
    confusion_matrix,
    reliability,
)
from engine.reporting.figures.grids import (
    CaptionedImages,
    grid,
    image_rows,
    join_captions,
    pixel_limits,
)
from engine.reporting.figures.lines import Chart, Line, charts
from engine.reporting.figures.masks import MaskedExample, masks
from engine.reporting.figures.regression import Scatter, predictions_over_targets

__all__ = [
    "CaptionedImages",
    "Chart",
    "Line",
    "MaskedExample",
    "Scatter",
    "charts",
    "class_balance",
    "class_scores",
    "confusion_matrix",
    "grid",
    "image_rows",
    "join_captions",
    "masks",
    "pixel_limits",
    "predictions_over_targets",
    "reliability",
]
