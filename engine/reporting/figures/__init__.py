"""Figures: functions that draw arrays and return the bytes of a PNG.

They do not depend on runs, TensorFlow or the disk, and import no other package of the project. The
same arguments give the same bytes.
"""

from engine.reporting.figures.bars import class_balance, class_scores
from engine.reporting.figures.calibration import reliability
from engine.reporting.figures.grids import Tiles, captions_of, grid, lines_of_images
from engine.reporting.figures.lines import Line, Panel, charts
from engine.reporting.figures.matrix import confusion_matrix

__all__ = [
    "Line",
    "Panel",
    "Tiles",
    "captions_of",
    "charts",
    "class_balance",
    "class_scores",
    "confusion_matrix",
    "grid",
    "lines_of_images",
    "reliability",
]
