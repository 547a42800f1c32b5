"""Arrays -> pictures, as the bytes of a PNG.

Knows nothing of runs, of TensorFlow or of the disk: imports no other room. The same arguments give
the same bytes.
"""

from figures.bars import class_balance, class_scores
from figures.calibration import reliability
from figures.grids import Tiles, captions_of, grid, lines_of_images
from figures.lines import Line, Panel, charts
from figures.matrix import confusion_matrix

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
