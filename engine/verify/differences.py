"""Measures the differences between two runs, and compares them with their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
        share = self.measured / self.bound if self.bound else math.inf
        return math.inf if math.isnan(share) else share

    def __str__(self) -> str:
        apart = f"{self.name} {self.measured:.1e} apart" if self.measured else "nothing apart"
        return f"{apart}, {self.bound:.2g} allowed"


def worst(differences: Sequence[Difference]) -> Difference:
    """Returns the difference that is largest relative to its bound."""
    return max(differences, key=lambda difference: difference.share)


def difference(one: np.ndarray | float, other: np.ndarray | float, scale: float = 0.0) -> float:
    """Returns the norm of `one - other`, of the same shape, relative to the norm of `one`.

    `scale` replaces the norm of `one` if it is larger: the norm of the values that were rounded and
    summed, if they cancel in their sum `one`. The result is 0 if both are equal, even if they are
    0; it may be nan or infinite.
    """
    with np.errstate(invalid="ignore"):
        apart, length = _norm(np.subtract(one, other)), max(_norm(one), scale)
    if not apart:
        return 0.0
    return apart / length if length else math.inf


def typical_sizes(trajectory: Trajectory) -> dict[str, float]:
    """Returns the absolute values of `Trajectory.means`, the scale of their rounding errors.

    Late in training, loss and gradient are small differences of large values (cancellation), with
    errors relative to the large values. Early in training, they are about as large as those values:
    pass a trajectory that starts at step 0.
    """
    return {name: abs(float(value)) for name, value in trajectory.means.items()}


def tensors(
    one: Trajectory, other: Trajectory, arithmetic: str, sizes: Mapping[str, float]
) -> list[Difference]:
    """Returns the differences of each tensor of model and EMA, and of loss and gradient norm.

    Args:
      one: trajectory of a run over any number of steps.
      other: trajectory of the same run on other devices, from the same state.
      arithmetic: precision that layers round to, see `bounds.arithmetic`.
      sizes: minimum scale of loss and gradient norm, see `typical_sizes`.
    """
    differences = []
    for name, value in one.weights.items():
        path = one.path[name]
        length = max(_norm(value), path)  # updates of a bias around 0 cancel
        bound = bounds.bound(arithmetic, path, length) if length else 0.0
        if length and _optimizer(one) == "lion":
            bound += bounds.sign_flip_bound(arithmetic, path, length, value.size)
        differences.append(Difference(name, difference(value, other.weights[name], path), bound))
    return differences + _of_means(one, other, bounds.metric_bound(arithmetic), sizes)


def whole_model_differences(
    one: Trajectory, other: Trajectory, arithmetic: str, sizes: Mapping[str, float]
) -> list[Difference]:
    """Returns the differences of all weights as one vector, and of loss and gradient norm.

    The arguments are those of `tensors`, with trajectories of one step from the same state.
    """
    vector, other_vector = _vector(one), _vector(other)
    update = _norm(np.array(list(one.path.values())))
    length = max(_norm(vector), update)
    bound = bounds.step_bound(arithmetic, update, length, _optimizer(one))
    if _optimizer(one) == "lion":
        bound += bounds.sign_flip_bound(arithmetic, update, length, vector.size)
    of_weights = Difference("weights", difference(vector, other_vector, update), bound)
    return [of_weights, *_of_means(one, other, bounds.step_metric_bound(arithmetic), sizes)]


def _optimizer(trajectory: Trajectory) -> str:
    return trajectory.parts.config.optimizer.optimizer


def _of_means(
    one: Trajectory, other: Trajectory, bound: float, sizes: Mapping[str, float]
) -> list[Difference]:
    differences = []
    for name in ("loss", "gradient norm"):
        values = one.means.get(name, 0.0), other.means.get(name, 0.0)
        differences.append(Difference(name, difference(*values, sizes.get(name, 0.0)), bound))
    return differences


def _norm(value: np.ndarray | float) -> float:
    """Returns the norm of all elements as one vector."""
    return float(np.linalg.norm(np.asarray(value)))


def _vector(trajectory: Trajectory) -> np.ndarray:
    flat = [value.ravel().astype(np.float64) for value in trajectory.weights.values()]
    return np.concatenate(flat)
