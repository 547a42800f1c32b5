"""Options of tuning."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class TuneOptions(OptionGroup):
    """Tuning with --mode=tune."""

    tuned_flags: str = option("tuned.flags", "flagfile that --mode=tune writes")
