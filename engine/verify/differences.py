"""Measures the differences between two runs, and compares them with their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from engine.core import metrics
from engine.verify import bounds
from engine.verify.trajectory import Trajectory


@dataclass(frozen=True)
class Difference:
    """A relative difference in norm, see `difference`, and its bound.

    Attributes:
      name: name of the tensor or metric.
      measured: relative difference; may be nan or infinite.
      bound: largest difference that passes.
    """

    name: str
    measured: float
    bound: float

    @property
    def within(self) -> bool:
        """Whether the difference is within its bound."""
        return self.measured <= self.bound

    @property
    def share(self) -> float:
        """Ratio of the difference to its bound; infinite if the difference is nan."""
        if self.measured == 0:
            return 0.0
        share = self.measured / self.bound if self.bound else float("inf")
        return share if share == share else float("inf")

    def __str__(self) -> str:
        apart = f"{self.name} {self.measured:.1e} apart" if self.measured else "nothing apart"
        return f"{apart}, {self.bound:.2g} allowed"


def worst(differences: Sequence[Difference]) -> Difference:
    """Returns the difference that is largest relative to its bound."""
    return max(differences, key=lambda difference: difference.share)


def difference(one: np.ndarray | float, other: np.ndarray | float, scale: float = 0.0) -> float:
    """Returns the norm of `one - other` relative to the norm of `one`.

    Args:
      one: array of any shape.
      other: array of the same shape.
      scale: norm that replaces the norm of `one` if it is larger, 0 or more: the norm of the
        values that were rounded and summed, if they cancel in their sum `one`.

    Returns:
      The relative difference: 0 if both are equal, even if they are 0; may be nan or infinite.
    """
    with np.errstate(invalid="ignore"):
        apart, length = _norm(np.subtract(one, other)), max(_norm(one), scale)
    return apart / length if apart and length else apart and float("inf")


def typical_sizes(trajectory: Trajectory) -> dict[str, float]:
    """Returns the typical magnitudes of loss, metrics and gradient norm.

    They are the scale of rounding errors. Late in training, loss and gradient are small differences
    of large values (cancellation), with errors relative to the large values. Early in training,
    they are about as large as those values: pass a trajectory that starts at step 0.

    Returns:
      The absolute values of the means over the steps, by name, including "gradient norm"; empty if
      no step updated the weights.
    """
    if not trajectory.sums[-1]:
        return {}
    means = metrics.step_means(trajectory.sums, trajectory.parts.task.metrics)
    found = {name: abs(float(value)) for name, value in means.items()}
    return found | {"gradient norm": found["gradient_norm"]}


def tensors(
    one: Trajectory,
    other: Trajectory,
    arithmetic: str,
    sizes: Mapping[str, float] = MappingProxyType({}),
) -> list[Difference]:
    """Returns the differences of each tensor of model and EMA, and of loss and gradient norm.

    Args:
      one: trajectory of a run over any number of steps.
      other: trajectory of the same run on other devices, from the same state.
      arithmetic: precision that layers round to, see `bounds.arithmetic`.
      sizes: typical magnitudes of loss and gradient norm, see `typical_sizes`; empty: the
        magnitudes in `one`.
    """
    found = []
    for name, value in one.weights.items():
        path = one.path[name]
        length = max(_norm(value), path)  # updates of a bias around 0 cancel
        allowed = bounds.bound(arithmetic, path, length) if length else 0.0
        if length and _optimizer(one) == "lion":
            allowed += bounds.sign_flip_bound(arithmetic, path, length, value.size)
        found.append(Difference(name, difference(value, other.weights[name], path), allowed))
    return found + _figures(one, other, bounds.metric_bound(arithmetic), sizes)


def whole_model_differences(
    one: Trajectory,
    other: Trajectory,
    arithmetic: str,
    sizes: Mapping[str, float] = MappingProxyType({}),
) -> list[Difference]:
    """Returns the differences of all weights as one vector, and of loss and gradient norm.

    The arguments are those of `tensors`, with trajectories of one step from the same state.
    """
    ours, theirs = _vector(one), _vector(other)
    move = _norm(np.array(list(one.path.values())))
    length = max(_norm(ours), move)
    allowed = bounds.step_bound(arithmetic, move, length, _optimizer(one))
    if _optimizer(one) == "lion":
        allowed += bounds.sign_flip_bound(arithmetic, move, length, ours.size)
    apart = Difference("weights", difference(ours, theirs, move), allowed)
    return [apart, *_figures(one, other, bounds.step_metric_bound(arithmetic), sizes)]


def _optimizer(trajectory: Trajectory) -> str:
    return trajectory.parts.config.optimizer.optimizer


def _figures(
    one: Trajectory, other: Trajectory, allowed: float, sizes: Mapping[str, float]
) -> list[Difference]:
    theirs = other.figures
    return [
        Difference(name, difference(figure, theirs[name], sizes.get(name, 0.0)), allowed)
        for name, figure in one.figures.items()
    ]


def _norm(value: np.ndarray | float) -> float:
    """Returns the norm of all elements as one vector."""
    return float(np.linalg.norm(np.asarray(value)))


def _vector(trajectory: Trajectory) -> np.ndarray:
    flat = [value.ravel().astype(np.float64) for value in trajectory.weights.values()]
    return np.concatenate(flat)
