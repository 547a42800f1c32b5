"""Options of reports: whether training writes one, and the split to evaluate or predict."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """Evaluation and reports.

    `report` controls the report at the end of training; `split` is an option of `--mode=evaluate`
    and `--mode=predict`.
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
