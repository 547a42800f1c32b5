"""Options of when checkpoints are saved, and how many are kept."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option
from engine.core.options import MAX_KEEP_BEST


@dataclasses.dataclass(frozen=True)
class CheckpointOptions(OptionGroup):
    """Checkpoints.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid; see `OptionGroup`.
    """

    checkpoint_every: int = option(
        0,
        "steps between checkpoints, in addition to the one at each evaluation; one is "
        "left out if the previous one is still being written; 0: no others",
        minimum=0,
    )
    checkpoint_seconds: int = option(
        300, "seconds between checkpoints, in addition to those; 0: no others", minimum=0
    )
    keep_every: int = option(
        0,
        "steps between checkpoints that are kept for good, in run_dir/kept, for --weights=step:N; "
        "0: none",
        minimum=0,
    )
    keep: int = option(3, "number of newest checkpoints that are kept", minimum=2)
    keep_best: int = option(
        1,
        "number of best checkpoints by --monitor that are kept, in run_dir/best, for "
        "--weights=average:K; another number holds from the next evaluation on",
        minimum=1,
        below=MAX_KEEP_BEST + 1,
    )
