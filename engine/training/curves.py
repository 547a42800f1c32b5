"""The curves of a run: what the steps since the point before came to, and what was scored."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine import metrics
from engine.assembly import Parts
from engine.keeping.board import Board, Row
from engine.keeping.clock import Clock
from engine.numerics.scalars import whole
from engine.points import Point
from engine.training.timetable import Timetable


def standing(parts: Parts) -> Point:
    """The point where a run stands, after one step or more."""
    state, step = parts.state, int(parts.state.step)
    return Point(
        step=step,
        updates=int(state.updates),
        loss_scale=float(state.loss_scale.value),
        learning_rate=float(parts.schedule(tf.constant(whole(step - 1)))),
        sums=state.sums.numpy(),
    )


def rows_of(
    parts: Parts, points: list[Point], *, kept: bool = True
) -> list[tuple[int, dict[str, float | int]]]:
    """(step, values) of each: means since the point before, and what moved the weights.

    Points do not overlap: the state remembers what was in the last one.

    Args:
      parts: of the run.
      points: 1 or more of the epoch, in order, that were passed since the last ones.
      kept: whether the state remembers them; not where a resumed run is to drop them.

    Raises:
      ValueError: for no points.
    """
    if not points:
        raise ValueError("rows of no points were asked for: give 1 or more")
    state, rows = parts.state, []
    logged = state.logged.numpy()
    for point in points:
        values = metrics.step_means(point.sums - logged, parts.task.metrics)
        values["learning_rate"] = point.learning_rate
        if state.loss_scale.dynamic:
            values["loss_scale"] = point.loss_scale
        values["skipped_steps"] = point.step - point.updates
        rows.append((point.step, values))
        logged = point.sums
    if kept:
        state.logged.assign(logged)
        state.written.assign(whole(points[-1].step))
    return rows


class Curves:
    """Writes a run's curves.

    Args:
      parts: of the run.
      board: that they go to.
      clock: of the same state.
      timetable: of the run.
    """

    def __init__(self, parts: Parts, board: Board, clock: Clock, timetable: Timetable) -> None:
        self._parts, self._board, self._clock, self._timetable = parts, board, clock, timetable

    def passed(self, points: list[Point], *, kept: bool = True) -> None:
        """Writes points of the training curves, one or more; arguments as for `rows_of`."""
        rate = {"steps_per_second": self._clock.steps_per_second}
        a_step = len(self._parts.source.train) / self._parts.steps_per_epoch
        of_clock = {
            "examples_per_second": self._clock.steps_per_second * a_step,
            **self._clock.figures,
        }
        rows = [
            Row(step, self._timetable.epoch(step), values | rate, of_clock)
            for step, values in rows_of(self._parts, points, kept=kept)
        ]
        self._board.write("train", rows)

    def scored(self, split: str, means: Mapping[str, float | int]) -> None:
        """What a split that was held out gave, where the run stands."""
        step = int(self._parts.state.step)
        self._board.write(split, [Row(step, self._timetable.epoch(step), means)])

    def weights(self) -> None:
        """Histograms of the model's variables, where the run stands."""
        values = {f"weights/{v.name.split(':')[0]}": v.numpy() for v in self._parts.model.variables}
        self._board.histograms(int(self._parts.state.step), values)
