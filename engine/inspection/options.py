"""Options of `--mode=inspect`, which looks at a run before it starts."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class InspectionOptions(OptionGroup):
    """Inspection with --mode=inspect.

    The options set where the page is written and how long one batch is trained on; the first line
    is the heading in `--help`.
    """

    inspect_path: str = option(
        "", "page that --mode=inspect writes; empty: inspect.html in run_dir"
    )
    inspect_steps: int = option(
        50,
        "training steps that --mode=inspect takes on one batch, to see whether the network can "
        "learn it; 0: none",
        minimum=0,
    )
