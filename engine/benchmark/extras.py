"""What a run does besides its steps - saving, logging, evaluating - done in a timed block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.assembly import Parts
from engine.benchmark.blocks import spread
from engine.keeping.board import Board, Row
from engine.keeping.checkpoints import Checkpoints
from engine.pace import stopwatch
from engine.points import Point
from engine.training.curves import rows_of


class Extra:
    """Something that is done once in a block.

    is_point: whether the block's last step is a point of the curves.
    stalls: seconds that the loop waited for it, one a block.
    """

    is_point = False

    def __init__(self) -> None:
        self.stalls: list[float] = []

    def before(self) -> None:
        """Does it before the block's steps."""

    def after(self, points: list[Point]) -> None:
        """Does it behind them.

        Args:
          points: of the curves, that the block passed.
        """

    def settle(self) -> None:
        """Waits, outside the block, until it is done."""

    def forget(self) -> None:
        """Takes what was measured so far for a warm-up."""
        self.stalls.clear()

    def close(self) -> None:
        """Ends what it has open."""

    def figures(self) -> dict[str, Any]:
        """Beside the stalls."""
        return {}


class Saving(Extra):
    """A checkpoint, written by the thread while the steps go on."""

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._bytes = 0
        self._checkpoints = Checkpoints(str(place), parts.state, keep=2)
        self._writes: list[float] = []

    def before(self) -> None:
        """Saves."""
        started = stopwatch()
        self._checkpoints.save()
        self.stalls.append(stopwatch() - started)

    def settle(self) -> None:
        """Waits for the disk."""
        self._checkpoints.finish()
        started = stopwatch()
        path = self._checkpoints.save_now()
        self._writes.append(stopwatch() - started)
        self._bytes = Path(path).stat().st_size

    def close(self) -> None:
        """Ends the thread."""
        self._checkpoints.close()

    def figures(self) -> dict[str, Any]:
        """How large a checkpoint is, and how long it takes where the loop waits for the disk."""
        return {
            "megabytes": self._bytes / 1e6,
            "waiting_for_the_disk_ms": spread([1e3 * s for s in self._writes], 50)["median"],
        }


class Logging(Extra):
    """A point of the training curves, in TensorBoard and metrics.jsonl."""

    is_point = True

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        self._parts, self._board = parts, Board(str(place))

    def after(self, points: list[Point]) -> None:
        """Writes the point."""
        started = stopwatch()
        rows = [Row(step, 1, values) for step, values in rows_of(self._parts, points)]
        self._board.write("train", rows)
        self.stalls.append(stopwatch() - started)

    def close(self) -> None:
        """Finishes the files."""
        self._board.close()


class Evaluating(Extra):
    """The splits that are held out, scored once."""

    def __init__(self, parts: Parts, place: Path) -> None:
        super().__init__()
        del place
        if not parts.evaluations:
            raise ValueError(
                "--benchmark_with=evaluation: nothing was held out; give --validation_split or "
                "--test_split"
            )
        self._evaluations, self._examples = parts.evaluations, 0

    def after(self, points: list[Point]) -> None:
        """Scores them."""
        del points
        started = stopwatch()
        found = [evaluation.run() for evaluation in self._evaluations.values()]
        self.stalls.append(stopwatch() - started)
        self._examples = sum(int(means["examples"]) for means in found if means is not None)

    def figures(self) -> dict[str, Any]:
        """Examples, and how many a second."""
        seconds = spread(self.stalls, 50)["median"]
        return {"examples": self._examples, "examples_per_second": self._examples / seconds}


EXTRAS = {"saving": Saving, "logging": Logging, "evaluation": Evaluating}
