"""Options of benchmarks."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, names_in, option

BENCHMARK_EXTRAS = ("saving", "logging", "evaluation")  # what a benchmark can measure besides steps


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(OptionGroup):
    """Benchmarks with --mode=benchmark."""

    benchmark_steps: int = option(
        0,
        "training steps to time, in total; 0: as many as take about eight seconds",
        minimum=0,
    )
    benchmark_data: str = option(
        "real",
        "real: the data set, through the feed; synthetic: one batch of random numbers of its "
        "shape, without a feed",
        choices=("real", "synthetic"),
    )
    benchmark_with: str = option(
        "", "what else to measure, separated by commas", any_of=BENCHMARK_EXTRAS
    )

    @property
    def extras(self) -> tuple[str, ...]:
        """Names, in `BENCHMARK_EXTRAS`, of the work to measure besides steps."""
        return names_in(self.benchmark_with)
