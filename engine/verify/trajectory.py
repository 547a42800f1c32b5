"""Takes training steps of a run and records their trajectory: weights, updates and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from engine.assembly.parts import Parts
from engine.core import metrics
from engine.models.properties import named_variables


def take(parts: Parts, steps: int, *, at_once: int = 1 << 62) -> Parts:
    """Takes `steps` training steps, at most `at_once` per call of the graph; returns `parts`."""
    while steps:
        to_epoch_end = parts.steps_per_epoch - int(parts.state.step) % parts.steps_per_epoch
        steps -= parts.loop.run(min(steps, to_epoch_end, at_once)).steps
    return parts


def run_steps_measured(
    parts: Parts, steps: int, before_step: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Takes `steps` training steps, one per call of the graph, each after calling `before_step`.

    Returns:
      For each tensor in `weights`, the sum of the norms of its updates, by name.
    """
    path = dict.fromkeys(weights(parts), 0.0)
    for _ in range(steps):
        before_step()
        before = weights(parts)
        parts.loop.run(1)
        for name, value in weights(parts).items():
            path[name] += float(np.linalg.norm(value - before[name]))
    return path


def weights(parts: Parts) -> dict[str, np.ndarray]:
    """Returns the values of all variables of the model and of its EMA, if any, by name.

    The names are attribute paths after "model/" or "ema/", such as "model/layers/0/kernel".
    """
    models = {"model": parts.state.model, "ema": parts.state.ema}
    return {
        f"{prefix}/{name}": variable.numpy()
        for prefix, model in models.items()
        if model is not None
        for name, variable in named_variables(model).items()
    }


def state_bytes(parts: Parts, *, but: Sequence[tf.Variable] = ()) -> dict[str, bytes]:
    """Returns the bytes of each state variable except timings and `but`, by attribute path."""
    excluded = {id(variable) for variable in (*parts.state.timing.variables, *but)}
    kept = {n: v for n, v in named_variables(parts.state).items() if id(v) not in excluded}
    return {name: variable.numpy().tobytes() for name, variable in kept.items()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Returns the names of the variables that differ between two results of `state_bytes`."""
    return [name for name in before if before[name] != after[name]]


@dataclass(frozen=True)
class Trajectory:
    """The state of a run after some consecutive steps, and sums over these steps."""

    parts: Parts  # the run, which may have continued since
    path: dict[str, float]  # sum of the norms of the updates of each tensor in `weights`, by name
    weights: dict[str, np.ndarray]  # returned by `weights` after the last step
    state: dict[str, bytes]  # returned by `state_bytes` after the last step
    sums: np.ndarray  # sum of metrics.step_sums over the finite steps, float64, as TrainState.sums
    updates: int  # number of the run's steps so far that updated the weights
    out_of_sync: list[str]  # names of the variables whose values differ between replicas

    @property
    def means(self) -> dict[str, float]:
        """Means of loss, metrics and gradient norm over the steps that updated weights, by name.

        The names are those of `metrics.step_means`, which include "examples", the number of
        examples in these steps; the gradient norm also has the name "gradient norm". The result is
        {} if no step updated the weights.
        """
        if not self.sums[-1]:
            return {}
        means = metrics.step_means(self.sums, self.parts.task.metrics)
        return {**means, "gradient norm": means["gradient_norm"]}

    @property
    def typical_sizes(self) -> dict[str, float]:
        """Absolute values of `means`, by name.

        For a trajectory from step 0, they are the scale of rounding errors. Late in training, loss
        and gradient are small differences of large values (cancellation). Their errors are relative
        to these values, which are about as large as loss and gradient were at first.
        """
        return {name: abs(float(value)) for name, value in self.means.items()}


Pairs = list[tuple[Trajectory, Trajectory]]


def record_trajectory(
    parts: Parts, steps: int, before_step: Callable[[], None] = lambda: None
) -> Trajectory:
    """Takes training steps one by one, each after calling `before_step`; returns the trajectory."""
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
        [n for n, v in named_variables(state).items() if _differ(replica_values(v))],
    )


def steps_together(
    one: Parts, other: Parts, steps: int, perturb: Callable[[Parts], None] = lambda parts: None
) -> Pairs:
    """Takes `steps` steps of two runs; both take each step from the state of `one` before it.

    Args:
      one: first run.
      other: second run, whose state is overwritten before each step.
      steps: number of steps.
      perturb: called before each step with `other`, whose state it may change.

    Returns:
      A pair of trajectories of one step, of `one` and of `other`, for each step. With a dynamic
      loss scale, steps in which only one run updates its weights are left out: a float16 gradient
      may overflow for the whole batch and not for its micro-batches.
    """
    pairs = []
    for _ in range(steps):
        for target, source in zip(other.state.variables, one.state.variables, strict=True):
            target.assign(source.numpy())
        perturb(other)
        pairs.append((record_trajectory(one, 1), record_trajectory(other, 1)))
    scaled = one.state.loss_scale.dynamic
    return [(a, b) for a, b in pairs if not scaled or a.updates == b.updates]


def _differ(copies: Sequence[tf.Variable]) -> bool:
    return len({copy.numpy().tobytes() for copy in copies}) > 1
