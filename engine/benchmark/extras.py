"""Work besides the steps (saving, logging, evaluation), timed within a block of steps."""

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
    """Work that is done once in a block.

    Attributes:
      is_point: whether the block's last step is a log point.
      stalls: seconds that the loop waits for the work, one entry a block.
    """

    is_point = False

    def __init__(self) -> None:
        self.stalls: list[float] = []

    def before(self) -> None:
        """Does the work that comes before the block's steps."""

    def after(self, points: list[LogPoint]) -> None:
        """Does the work that comes after the block's steps.

        Args:
          points: log points that the block passed.
        """

    def settle(self) -> None:
        """Waits, outside the timed block, until the work is done."""

    def forget(self) -> None:
        """Discards the measurements so far as warm-up."""
        self.stalls.clear()

    def close(self) -> None:
        """Closes open resources."""

    def figures(self) -> dict[str, Any]:
        """Returns measurements besides the stalls, by name."""
        return {}


class Saving(Extra):
    """Saves a checkpoint; a thread writes it while training continues."""

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._bytes = 0
        self._checkpoints = CheckpointManager(str(place), parts.state, keep=2)
        self._writes: list[float] = []

    def before(self) -> None:
        """Starts saving a checkpoint."""
        started = stopwatch()
        self._checkpoints.save()
        self.stalls.append(stopwatch() - started)

    def settle(self) -> None:
        """Waits for the pending write, then times a synchronous save."""
        self._checkpoints.finish()
        started = stopwatch()
        path = self._checkpoints.save_and_wait()
        self._writes.append(stopwatch() - started)
        self._bytes = Path(path).stat().st_size

    def close(self) -> None:
        """Stops the thread."""
        self._checkpoints.close()

    def figures(self) -> dict[str, Any]:
        """Returns the size of a checkpoint in MB and the time of a synchronous save in ms."""
        return {
            "megabytes": self._bytes / 1e6,
            "waiting_for_the_disk_ms": spread([1e3 * s for s in self._writes], 50)["median"],
        }


class Logging(Extra):
    """Writes a log point of training metrics to TensorBoard and metrics.jsonl."""

    is_point = True

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._parts, self._metric_writer = parts, MetricWriter(str(place))

    def after(self, points: list[LogPoint]) -> None:
        """Writes the log point."""
        started = stopwatch()
        rows = [MetricRow(step, 1, values) for step, values in metric_rows(self._parts, points)]
        self._metric_writer.write("train", rows)
        self.stalls.append(stopwatch() - started)

    def close(self) -> None:
        """Closes the files."""
        self._metric_writer.close()


class Evaluating(Extra):
    """Evaluates the held-out splits once."""

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
        """Evaluates each split."""
        del points
        started = stopwatch()
        found = [evaluation.run() for evaluation in self._evaluations.values()]
        self.stalls.append(stopwatch() - started)
        self._examples = sum(int(means["examples"]) for means in found if means is not None)

    def figures(self) -> dict[str, Any]:
        """Returns the number of examples, and examples per second."""
        seconds = spread(self.stalls, 50)["median"]
        return {"examples": self._examples, "examples_per_second": self._examples / seconds}


EXTRAS = {"saving": Saving, "logging": Logging, "evaluation": Evaluating}
