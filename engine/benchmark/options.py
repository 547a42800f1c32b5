"""Options of `--mode=benchmark`, which measures training speed."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, names_in, option

BENCHMARK_EXTRAS = ("saving", "logging", "evaluation")  # what a benchmark can measure besides steps


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(OptionGroup):
    """Benchmarks with --mode=benchmark.

    The options set the number of timed steps, the data, and what else is measured; the first line
    is the heading in `--help`.
    """

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
        """Names of the work to measure besides steps, each one of `BENCHMARK_EXTRAS`."""
        return names_in(self.benchmark_with)
