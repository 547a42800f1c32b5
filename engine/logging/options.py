"""Options of logging, TensorBoard and the profiler."""

from __future__ import annotations

import dataclasses
import re

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class LoggingOptions(OptionGroup):
    """Logging, TensorBoard and the profiler.

    Option group of what is logged and when; the first line is the heading in `--help`.
    """

    log_every: int = option(
        0, "steps between log points; 0: one per epoch", minimum=0, affects="record"
    )
    histograms: bool = option(
        False,
        "write histograms of the weights for TensorBoard at the end of every epoch",
        affects="record",
    )
    profile: str = option(
        "",
        "START:END: steps that TensorFlow's profiler records for TensorBoard, without END; "
        "START below the number of steps of the run; empty: none",
        affects="record",
    )
    progress: str = option(
        "auto",
        "progress bar. auto: if the output is a terminal; on; off",
        choices=("auto", "on", "off"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile and not (
            re.fullmatch(r"[0-9]{1,15}:[0-9]{1,15}", self.profile)
            and self.profiled[0] < self.profiled[1]
        ):
            raise ValueError(f"--profile={self.profile}: give START:END, such as 100:120")

    @property
    def profiled(self) -> tuple[int, int]:
        """Range of steps to profile, as (first, one past the last); (0, 0): none."""
        first, end = map(int, (self.profile or "0:0").split(":"))
        return first, end
