"""Options of `--mode=tune`, which searches for the options with the highest training throughput."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class TuneOptions(OptionGroup):
    """Tuning with --mode=tune.

    `tuned_flags` is the path of the flagfile to write; the first line is the heading in `--help`.
    """

    tuned_flags: str = option("tuned.flags", "flagfile that --mode=tune writes")
