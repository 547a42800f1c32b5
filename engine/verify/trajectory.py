"""Takes the steps of a run and records their trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import metrics


def take(parts: Parts, steps: int, *, at_once: int = 1 << 62) -> Parts:
    """Takes steps, epoch by epoch; returns `parts`.

    Args:
      parts: objects of the run.
      steps: number of steps.
      at_once: maximum number of steps per call of the graph.
    """
    while steps:
        left = parts.steps_per_epoch - int(parts.state.step) % parts.steps_per_epoch
        portion = min(steps, left, at_once)
        steps -= parts.loop.run(portion).steps
    return parts


def run_steps_measured(
    parts: Parts, steps: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Takes steps one by one; returns the sum of the norms of each tensor's updates, by name.

    Args:
      parts: objects of the run.
      steps: number of steps.
      between: called before each step.
    """
    path = dict.fromkeys(weights(parts), 0.0)
    for _ in range(steps):
        between()
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
    left_out = {id(variable) for variable in (*parts.state.timing.variables, *but)}
    kept = [v for v in parts.state.variables if id(v) not in left_out]
    return {f"{place}/{v.name}": v.numpy().tobytes() for place, v in enumerate(kept)}


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
      everything: `state_bytes` after the last step.
      sums: sum of `metrics.step_sums` over these steps, float64 [4 + metrics].
      updates: number of the run's steps so far that updated the weights.
      torn: names of the variables whose values differ between replicas.
    """

    parts: Parts
    path: dict[str, float]
    weights: dict[str, np.ndarray]
    everything: dict[str, bytes]
    sums: np.ndarray
    updates: int
    torn: list[str]

    @property
    def figures(self) -> dict[str, float]:
        """Mean loss and gradient norm over the steps that updated the weights; 0 if none did."""
        if not self.sums[-1]:
            return {"loss": 0.0, "gradient norm": 0.0}
        means = metrics.step_means(self.sums, self.parts.task.metrics)
        return {"loss": means["loss"], "gradient norm": means["gradient_norm"]}


def record_trajectory(
    parts: Parts, steps: int, between: Callable[[], None] = lambda: None
) -> Trajectory:
    """Takes steps one by one; returns their trajectory.

    Args:
      parts: objects of the run.
      steps: number of steps.
      between: called before each step.
    """
    before = parts.state.sums.numpy()
    path = run_steps_measured(parts, steps, between)
    state = parts.state
    return Trajectory(
        parts,
        path,
        weights(parts),
        state_bytes(parts),
        state.sums.numpy() - before,
        int(state.updates),
        [v.name for v in state.variables if _torn(parts.strategy.experimental_local_results(v))],
    )


def step_together(one: Parts, other: Parts) -> tuple[Trajectory, Trajectory]:
    """Copies the state of the first run to the second, then takes one step of each."""
    for theirs, ours in zip(other.state.variables, one.state.variables, strict=True):
        theirs.assign(ours.numpy())
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


def _torn(copies: Sequence[tf.Variable]) -> bool:
    return len({copy.numpy().tobytes() for copy in copies}) > 1
