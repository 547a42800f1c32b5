"""Options of the detection and skipping of bad steps."""

from __future__ import annotations

import dataclasses
import re

from engine.config.option import OptionGroup, option
from engine.core.options import MAX_SKIPPED_STEPS


@dataclasses.dataclass(frozen=True)
class BadStepOptions(OptionGroup):
    """Bad steps: detection, rollback and skipping.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    bad_steps: int = option(
        -1,
        "how many steps whose gradient is not finite are tolerated; at one more the run rolls "
        "back to its last checkpoint and skips that step; -1: 0, or any number with a dynamic "
        "loss scale",
        minimum=-1,
        trajectory=True,
    )
    bad_steps_in_a_row: int = option(
        -1,
        "as --bad_steps, for consecutive steps; -1: 0, or 20 with a dynamic loss scale",
        minimum=-1,
        trajectory=True,
    )
    spike: float = option(
        0.0,
        "a step whose loss is more than so many robust standard deviations above the median of "
        "the 64 before it has gone wrong too, where a deviation is at least a tenth of what the "
        "loss has fallen by since the start; so has one whose gradient is more than so many times "
        "as long as those before; 10 is advised; 0: whatever its loss and gradient",
        minimum=0,
        trajectory=True,
    )
    leave_out: str = option(
        "",
        "steps to skip in any case, by their numbers from 0, such as 120,350; each below the "
        "number of steps of the run",
        trajectory=True,
    )
    most_left_out: int = option(
        10,
        "maximum number of bad steps that are skipped; at one more the run stops with a report",
        minimum=0,
        below=MAX_SKIPPED_STEPS + 1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"(\d+(,\d+)*)?", self.leave_out):
            raise ValueError(
                f"--leave_out={self.leave_out}: give numbers of steps, such as 120,350"
            )
