"""Options of evaluation and reports."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """Evaluation and reports."""

    report: bool = option(
        True,
        "write report.html and plots/ at the end of training and, for TensorBoard, images, "
        "the graph and a row of HParams",
        affects="end",
    )
    split: str = option(
        "", "TFDS split to evaluate or predict, such as test[:100]; empty: the splits of the run"
    )
