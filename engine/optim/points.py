"""Points of the piecewise schedules, as `--schedule_points` gives them.

This module does not import TensorFlow, so that invalid options are rejected at once.
"""

from __future__ import annotations

POINTS = "0.5:0.1,0.75:0.01"  # default: drops of He et al. 2016 for CIFAR-10


def points(text: str) -> tuple[tuple[float, float], ...]:
    """Returns the points (share of the steps, factor of the peak learning rate) in a text.

    The shares rise strictly. The first point is (0, 1), unless the text has one of share 0.

    Args:
      text: "SHARE:FACTOR,...", such as "0.5:0.1,0.75:0.01".

    Raises:
      ValueError: if a part is not SHARE:FACTOR with a share from 0 to 1 and a factor from 0 to 1,
        if the shares do not rise, or if there is no point.
    """
    flag = f"--schedule_points={text}"
    found: list[tuple[float, float]] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        share, _, factor = part.partition(":")
        try:
            point = float(share), float(factor)
        except ValueError:
            point = -1.0, -1.0
        if not all(0 <= value <= 1 for value in point):
            raise ValueError(
                f"{flag}: {part!r} is not SHARE:FACTOR, both from 0 to 1, such as 0.5:0.1"
            )
        if found and point[0] <= found[-1][0]:
            raise ValueError(f"{flag}: the shares do not rise at {part!r}; sort the points")
        found.append(point)
    if not found:
        raise ValueError(f"{flag}: give points SHARE:FACTOR,..., such as 0.5:0.1,0.75:0.01")
    return tuple(found) if found[0][0] == 0 else ((0.0, 1.0), *found)
