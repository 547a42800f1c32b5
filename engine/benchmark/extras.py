"""Measures the cost of checkpoints, logging and evaluation in timed blocks of training steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.assembly.parts import Parts
from engine.benchmark.blocks import spread
from engine.checkpoint.manager import CheckpointManager
from engine.core.log_points import LogPoint
from engine.core.steps_per_loop import stopwatch
from engine.logging.metric_writer import MetricRow, MetricWriter
from engine.trainer.train_logging import metric_rows


class Extra:
    """Base class of work besides steps, such as evaluation, done once per timed block of steps."""

    is_point = False  # whether metrics are recorded at the block's last step (a log point)

    def __init__(self) -> None:
        self.stalls: list[float] = []  # seconds that training waits for the work, per block

    def before(self) -> None:
        """Does the work that precedes the block's steps, by default none."""

    def after(self, points: list[LogPoint]) -> None:
        """Does the work that follows the block's steps, by default none.

        `points` are the log points of the steps.
        """

    def settle(self) -> None:
        """Waits until asynchronous work is done; called after the timed block.

        By default, does nothing.
        """

    def close(self) -> None:
        """Closes the files that the work writes. By default, does nothing."""

    def figures(self) -> dict[str, Any]:
        """Returns measurements other than the stalls, by name in the JSON output; {} by default."""
        return {}

    @contextlib.contextmanager
    def _stall(self) -> Iterator[None]:
        """Appends the duration of the `with` statement's body to `stalls`."""
        started = stopwatch()
        yield
        self.stalls.append(stopwatch() - started)


class _Saving(Extra):
    """Extra that saves checkpoints in `directory`.

    It measures the stall of an asynchronous save, the duration of a synchronous save, and the file
    size.
    """

    def __init__(self, parts: Parts, directory: Path) -> None:
        super().__init__()
        self._bytes = 0
        self._checkpoints = CheckpointManager(str(directory), parts.state, keep=2)
        self._writes: list[float] = []

    def before(self) -> None:
        with self._stall():
            self._checkpoints.save()

    def settle(self) -> None:
        self._checkpoints.finish()
        started = stopwatch()
        path = self._checkpoints.save_and_wait()
        self._writes.append(stopwatch() - started)
        self._bytes = Path(path).stat().st_size

    def close(self) -> None:
        self._checkpoints.close()

    def figures(self) -> dict[str, Any]:
        return {
            "megabytes": self._bytes / 1e6,
            "waiting_for_the_disk_ms": spread([1e3 * s for s in self._writes], 50)["median"],
        }


class _Logging(Extra):
    """Extra that logs metrics to metrics.jsonl and event files in `directory`; measures stalls."""

    is_point = True

    def __init__(self, parts: Parts, directory: Path) -> None:
        super().__init__()
        self._parts, self._metric_writer = parts, MetricWriter(str(directory))

    def after(self, points: list[LogPoint]) -> None:
        with self._stall():
            rows = [MetricRow(step, 1, values) for step, values in metric_rows(self._parts, points)]
            self._metric_writer.write("train", rows)

    def close(self) -> None:
        self._metric_writer.close()


class _Evaluation(Extra):
    """Extra that evaluates all held-out splits; measures stalls and examples per second.

    Raises:
      ValueError: if there are no held-out splits.
    """

    def __init__(self, parts: Parts, directory: Path) -> None:
        super().__init__()
        if not parts.evaluations:
            raise ValueError(
                "--benchmark_with=evaluation: nothing was held out; give --validation_split or "
                "--test_split"
            )
        self._evaluations, self._examples = parts.evaluations, 0

    def after(self, points: list[LogPoint]) -> None:
        with self._stall():
            results = [evaluation.run() for evaluation in self._evaluations.values()]
        self._examples = sum(int(means["examples"]) for means in results if means is not None)

    def figures(self) -> dict[str, Any]:
        seconds = spread(self.stalls, 50)["median"]
        return {"examples": self._examples, "examples_per_second": self._examples / seconds}


EXTRAS = {"saving": _Saving, "logging": _Logging, "evaluation": _Evaluation}
