"""Takes the steps of a run and records their trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import metrics


def take(parts: Parts, steps: int, *, at_once: int = 1 << 62) -> Parts:
    """Takes steps, epoch by epoch, at most `at_once` per call of the graph; returns `parts`."""
    while steps:
        to_epoch_end = parts.steps_per_epoch - int(parts.state.step) % parts.steps_per_epoch
        steps -= parts.loop.run(min(steps, to_epoch_end, at_once)).steps
    return parts


def run_steps_measured(
    parts: Parts, steps: int, before_step: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Takes steps one by one; returns the sum of the norms of each tensor's updates, by name."""
    path = dict.fromkeys(weights(parts), 0.0)
    for _ in range(steps):
        before_step()
        before = weights(parts)
        parts.loop.run(1)
        for name, value in weights(parts).items():
            path[name] += float(np.linalg.norm(value - before[name]))
    return path


def weights(parts: Parts) -> dict[str, np.ndarray]:
    """Returns the values of all variables of the model and of its EMA, by name."""
    state = parts.state
    named = {f"model/{v.name}": v.numpy() for v in state.model.variables}
    if state.ema is not None:
        named |= {f"ema/{v.name}": v.numpy() for v in state.ema.variables}
    return named


def state_bytes(parts: Parts, *, but: Sequence[tf.Variable] = ()) -> dict[str, bytes]:
    """Returns the bytes of each state variable except timings and `but`, by index and name."""
    excluded = {id(variable) for variable in (*parts.state.timing.variables, *but)}
    kept = [v for v in parts.state.variables if id(v) not in excluded]
    return {f"{index}/{v.name}": v.numpy().tobytes() for index, v in enumerate(kept)}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Returns the names of the variables that are not bitwise identical."""
    return [name.split("/", 1)[1] for name in before if before[name] != after[name]]


@dataclass(frozen=True)
class Trajectory:
    """The state of a run after some steps, and sums over those steps.

    Attributes:
      parts: objects of the run, which may have continued since.
      path: sum of the norms of the updates of each tensor in `weights`, by name.
      weights: `weights` after the last step.
      state: `state_bytes` after the last step.
      sums: sum of `metrics.step_sums` over these steps, float64 [4 + metrics].
      updates: number of the run's steps so far that updated the weights.
      out_of_sync: names of the variables whose values differ between replicas.
    """

    parts: Parts
    path: dict[str, float]
    weights: dict[str, np.ndarray]
    state: dict[str, bytes]
    sums: np.ndarray
    updates: int
    out_of_sync: list[str]

    @property
    def means(self) -> dict[str, float]:
        """Mean loss, metrics and "gradient norm" of steps that updated the weights; {} if none."""
        if not self.sums[-1]:
            return {}
        means = metrics.step_means(self.sums, self.parts.task.metrics)
        return {**means, "gradient norm": means["gradient_norm"]}


def record_trajectory(
    parts: Parts, steps: int, before_step: Callable[[], None] = lambda: None
) -> Trajectory:
    """Takes steps one by one; returns their trajectory."""
    state, replica_values = parts.state, parts.strategy.experimental_local_results
    sums_before = state.sums.numpy()
    path = run_steps_measured(parts, steps, before_step)
    return Trajectory(
        parts,
        path,
        weights(parts),
        state_bytes(parts),
        state.sums.numpy() - sums_before,
        int(state.updates),
        [v.name for v in state.variables if _differ(replica_values(v))],
    )


def step_together(one: Parts, other: Parts) -> tuple[Trajectory, Trajectory]:
    """Copies the state of the first run to the second, then takes one step of each."""
    for target, source in zip(other.state.variables, one.state.variables, strict=True):
        target.assign(source.numpy())
    return record_trajectory(one, 1), record_trajectory(other, 1)


def updated_alike(
    pairs: Sequence[tuple[Trajectory, Trajectory]],
) -> list[tuple[Trajectory, Trajectory]]:
    """Returns the pairs in which both runs updated the weights, or neither did.

    Without a dynamic loss scale, returns all pairs. A float16 gradient may overflow for the whole
    batch and not for its micro-batches, so that one run skips a step that the other takes.
    """
    scaled = any(one.parts.state.loss_scale.dynamic for one, _ in pairs)
    return [(one, other) for one, other in pairs if not scaled or one.updates == other.updates]


def _differ(copies: Sequence[tf.Variable]) -> bool:
    return len({copy.numpy().tobytes() for copy in copies}) > 1
