"""Options of reports, of `--mode=evaluate`, and of the split that is evaluated or predicted."""

from __future__ import annotations

import dataclasses
import re

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """Evaluation and reports.

    `report` controls the report at the end of training; `split` is an option of `--mode=evaluate`
    and `--mode=predict`; the other options are those of `--mode=evaluate`.
    """

    report: bool = option(
        True,
        "write report.html and plots/ at the end of training and, for TensorBoard, images, "
        "the graph and a row of HParams",
        affects="end",
    )
    split: str = option(
        "", "TFDS split to evaluate or predict, such as test[:100]; empty: the splits of the run"
    )
    follow: bool = option(
        False,
        "with --mode=evaluate: evaluate every new checkpoint of a run while it trains, until the "
        "run has ended",
    )
    evaluation_name: str = option(
        "follow", "name of what --follow writes: run_dir/evaluations/NAME.jsonl"
    )
    follow_timeout: int = option(
        600,
        "seconds after which --follow ends if no process trains the run and it has not ended",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[\w-][\w.-]{0,99}", self.evaluation_name):
            raise ValueError(
                f"--evaluation_name={self.evaluation_name}: give letters, digits, _ and -"
            )
