"""Computes relative differences of weights, losses and gradient norms of two runs, and bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.models.properties import named_variables
from engine.verify import bounds
from engine.verify.trajectory import Trajectory

MEANS = "loss", "gradient norm"  # what is compared besides tensors


@dataclass(frozen=True)
class Difference:
    """Relative difference of a tensor or metric of two runs, from `difference`, and the bound."""

    name: str  # of the tensor or metric
    measured: float
    bound: float

    @property
    def within(self) -> bool:
        """Whether the difference is at most its bound; False if the difference is nan."""
        return self.measured <= self.bound

    @property
    def share(self) -> float:
        """Ratio of the difference to its bound; infinite if the bound is 0 or the quotient is nan.

        For a difference of 0, the ratio is 0, whatever the bound is.
        """
        if self.measured == 0:
            return 0.0
        share = self.measured / self.bound if self.bound else math.inf
        return math.inf if math.isnan(share) else share

    def __str__(self) -> str:
        apart = f"{self.name} {self.measured:.1e} apart" if self.measured else "nothing apart"
        return f"{apart}, {self.bound:.2g} allowed"


def worst(differences: Sequence[Difference]) -> Difference:
    """Returns the difference that is largest relative to its bound; there must be at least one."""
    return max(differences, key=lambda difference: difference.share)


def difference(one: np.ndarray | float, other: np.ndarray | float, scale: float = 0.0) -> float:
    """Returns the norm of `one - other` divided by the norm of `one`, or by `scale` if larger.

    The norm is that of all elements as one vector.

    Args:
      one: reference value.
      other: value to compare, of the same shape.
      scale: norm of the values that were rounded and summed to `one`, which may cancel.

    Returns:
      The quotient; 0 if `one` and `other` are equal and finite, even if both are 0. Otherwise the
      quotient is infinite if `one` and `scale` are 0, and infinite or nan if an element is.
    """
    with np.errstate(invalid="ignore"):
        apart, length = _norm(np.subtract(one, other)), max(_norm(one), scale)
    if not apart:
        return 0.0
    return apart / length if length else math.inf


def tensors(
    one: Trajectory, other: Trajectory, arithmetic: str, sizes: Mapping[str, float]
) -> list[Difference]:
    """Returns the differences of each tensor of model and EMA, and of mean loss and gradient norm.

    Args:
      one: reference trajectory.
      other: trajectory to compare, from the same state.
      arithmetic: precision that layers round to, the result of `bounds.arithmetic`.
      sizes: minimum scales, by name, of the differences of "loss" and "gradient norm", such as
        `Trajectory.typical_sizes`; 0 for a missing name.
    """
    differences, typical = [], _norms_of_statistics(one)
    for name, value in one.weights.items():
        path = one.path[name]
        scale = max(path, typical.get(name, 0.0))  # updates of a bias around 0 cancel
        length = max(_norm(value), scale)
        bound = bounds.bound(arithmetic, path, length) if length else 0.0
        if length and _optimizer(one) == "lion":
            bound += bounds.sign_flip_bound(arithmetic, path, length, value.size)
        differences.append(Difference(name, difference(value, other.weights[name], scale), bound))
    return differences + _of_means(one, other, bounds.metric_bound(arithmetic), sizes)


def whole_model_differences(
    one: Trajectory, other: Trajectory, arithmetic: str, sizes: Mapping[str, float]
) -> list[Difference]:
    """Returns the differences after one step: of all weights as one vector, and of the means.

    The weights are all variables of model and EMA; the means are the loss and the gradient norm.
    The arguments are as in `tensors`, but the trajectories have one step.
    """
    vector, other_vector = _vector(one), _vector(other)
    update = _norm(np.array(list(one.path.values())))
    length = max(_norm(vector), update)
    bound = bounds.step_bound(arithmetic, update, length, _optimizer(one))
    if _optimizer(one) == "lion":
        bound += bounds.sign_flip_bound(arithmetic, update, length, vector.size)
    of_weights = Difference("weights", difference(vector, other_vector, update), bound)
    return [of_weights, *_of_means(one, other, bounds.step_metric_bound(arithmetic), sizes)]


def _norms_of_statistics(trajectory: Trajectory) -> dict[str, float]:
    """Returns the root mean square of the norms of the statistics of each kind, by statistic.

    The statistics are the non-trainable variables of the model, and the keys of the result are
    names in `trajectory.weights`. Statistics are of one kind if the last parts of their names are
    equal, such as "moving_mean". The norm of a single statistic is no scale for errors: the mean of
    a layer's inputs may be 0 but for the rounding errors of a sum, as between two batch norms
    without an activation.
    """
    kinds: dict[str, list[str]] = {}
    for name, variable in named_variables(trajectory.parts.state.model).items():
        if not variable.trainable:
            kinds.setdefault(name.rpartition("/")[2], []).append(f"model/{name}")
    typical: dict[str, float] = {}
    for names in kinds.values():
        norms = [_norm(trajectory.weights[name]) for name in names]
        typical |= dict.fromkeys(names, _norm(np.array(norms)) / len(norms) ** 0.5)
    return typical


def _optimizer(trajectory: Trajectory) -> str:
    return trajectory.parts.config.optimizer.optimizer


def _of_means(
    one: Trajectory, other: Trajectory, bound: float, sizes: Mapping[str, float]
) -> list[Difference]:
    differences = []
    for name in MEANS:
        mean, other_mean, scale = (each.get(name, 0.0) for each in (one.means, other.means, sizes))
        differences.append(Difference(name, difference(mean, other_mean, scale), bound))
    return differences


def _norm(value: np.ndarray | float) -> float:
    """Returns the Euclidean norm of all elements as one vector."""
    return float(np.linalg.norm(np.asarray(value)))


def _vector(trajectory: Trajectory) -> np.ndarray:
    return np.concatenate([v.ravel().astype(np.float64) for v in trajectory.weights.values()])
