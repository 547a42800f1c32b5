"""Measures saving, logging and evaluation within timed blocks of steps."""

from __future__ import annotations

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
    """Base class of work that is done once in a block of steps.

    Attributes:
      is_point: whether the block's last step is a log point.
      stalls: seconds that training waits for the work, one entry per block.
    """

    is_point = False

    def __init__(self) -> None:
        self.stalls: list[float] = []

    def before(self) -> None:
        """Does the work that precedes the block's steps."""

    def after(self, points: list[LogPoint]) -> None:
        """Does the work that follows the block's steps.

        Args:
          points: log points of the block's steps.
        """

    def settle(self) -> None:
        """Waits until the work is done; called outside the timed block."""

    def forget(self) -> None:
        """Discards the stalls recorded so far, which were warm-up."""
        self.stalls.clear()

    def close(self) -> None:
        """Closes open resources."""

    def figures(self) -> dict[str, Any]:
        """Returns the measurements other than the stalls, by name."""
        return {}


class Saving(Extra):
    """Measures checkpoints: stall of an asynchronous save, time of a synchronous one, file size."""

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._bytes = 0
        self._checkpoints = CheckpointManager(str(place), parts.state, keep=2)
        self._writes: list[float] = []

    def before(self) -> None:
        """Starts an asynchronous save and records the stall."""
        started = stopwatch()
        self._checkpoints.save()
        self.stalls.append(stopwatch() - started)

    def settle(self) -> None:
        """Waits for the pending save, then times a synchronous save."""
        self._checkpoints.finish()
        started = stopwatch()
        path = self._checkpoints.save_and_wait()
        self._writes.append(stopwatch() - started)
        self._bytes = Path(path).stat().st_size

    def close(self) -> None:
        """Waits for pending saves and ends the background thread."""
        self._checkpoints.close()

    def figures(self) -> dict[str, Any]:
        """Returns the file size in MB and the median time of a synchronous save in ms."""
        return {
            "megabytes": self._bytes / 1e6,
            "waiting_for_the_disk_ms": spread([1e3 * s for s in self._writes], 50)["median"],
        }


class Logging(Extra):
    """Measures logging: stall of writing metrics to an event file and metrics.jsonl."""

    is_point = True

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._parts, self._metric_writer = parts, MetricWriter(str(place))

    def after(self, points: list[LogPoint]) -> None:
        """Writes the metrics of the log point and records the stall."""
        started = stopwatch()
        rows = [MetricRow(step, 1, values) for step, values in metric_rows(self._parts, points)]
        self._metric_writer.write("train", rows)
        self.stalls.append(stopwatch() - started)

    def close(self) -> None:
        """Closes the files."""
        self._metric_writer.close()


class Evaluating(Extra):
    """Measures evaluation: stall and throughput of evaluating all held-out splits."""

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        del place
        if not parts.evaluations:
            raise ValueError(
                "--benchmark_with=evaluation: nothing was held out; give --validation_split or "
                "--test_split"
            )
        self._evaluations, self._examples = parts.evaluations, 0

    def after(self, points: list[LogPoint]) -> None:
        """Evaluates each held-out split and records the stall."""
        del points
        started = stopwatch()
        found = [evaluation.run() for evaluation in self._evaluations.values()]
        self.stalls.append(stopwatch() - started)
        self._examples = sum(int(means["examples"]) for means in found if means is not None)

    def figures(self) -> dict[str, Any]:
        """Returns the number of evaluated examples, and the throughput in examples per second."""
        seconds = spread(self.stalls, 50)["median"]
        return {"examples": self._examples, "examples_per_second": self._examples / seconds}


EXTRAS = {"saving": Saving, "logging": Logging, "evaluation": Evaluating}
