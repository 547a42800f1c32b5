"""How far two runs are apart, and how far they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.verify import bounds
from engine.verify.trajectory import Trajectory


@dataclass(frozen=True)
class Difference:
    """A relative difference in norm, and its bound."""

    name: str
    measured: float
    bound: float

    @property
    def within(self) -> bool:
        """Whether it is no larger than it may be."""
        return self.measured <= self.bound

    @property
    def share(self) -> float:
        """Of the bound; what is no number is worse than any."""
        if self.measured == 0:
            return 0.0
        share = self.measured / self.bound if self.bound else float("inf")
        return share if share == share else float("inf")

    def __str__(self) -> str:
        apart = f"{self.name} {self.measured:.1e} apart" if self.measured else "nothing apart"
        return f"{apart}, {self.bound:.2g} allowed"


def worst(differences: Sequence[Difference]) -> Difference:
    """The one that is furthest apart, for what it may be."""
    return max(differences, key=lambda difference: difference.share)


def difference(one: np.ndarray | float, other: np.ndarray | float) -> float:
    """Relative to `one`, in norm; 0 where they are the same, a tensor of zeros too; may be nan."""
    with np.errstate(invalid="ignore"):
        apart, length = _norm(np.subtract(one, other)), _norm(one)
    return apart / length if apart and length else apart and float("inf")


def tensors(one: Trajectory, other: Trajectory, arithmetic: str) -> list[Difference]:
    """Of each tensor of the model and its average, of loss and gradient, after any steps.

    Args:
      one: a run.
      other: the same on other devices, once in the same state.
      arithmetic: what layers round to, see `bounds.arithmetic`.
    """
    found = []
    for name, value in one.weights.items():
        path, length = one.path[name], _norm(value)
        allowed = bounds.bound(arithmetic, path, length) if length else 0.0
        if length and _optimizer(one) == "lion":
            allowed += bounds.flips(arithmetic, path, length, value.size)
        found.append(Difference(name, difference(value, other.weights[name]), allowed))
    return found + _figures(one, other, bounds.figure_bound(arithmetic))


def as_a_whole(one: Trajectory, other: Trajectory, arithmetic: str) -> list[Difference]:
    """Of all weights as one vector, of loss and gradient, after one step from the same state."""
    ours, theirs = _vector(one), _vector(other)
    move, length = _norm(np.array(list(one.path.values()))), _norm(ours)
    allowed = bounds.step_bound(arithmetic, move, length, _optimizer(one))
    if _optimizer(one) == "lion":
        allowed += bounds.flips(arithmetic, move, length, ours.size)
    apart = Difference("weights", difference(ours, theirs), allowed)
    return [apart, *_figures(one, other, bounds.step_figure_bound(arithmetic))]


def _optimizer(trajectory: Trajectory) -> str:
    return trajectory.parts.config.optimization.optimizer


def _figures(one: Trajectory, other: Trajectory, allowed: float) -> list[Difference]:
    theirs = other.figures
    return [
        Difference(name, difference(figure, theirs[name]), allowed)
        for name, figure in one.figures.items()
    ]


def _norm(value: np.ndarray | float) -> float:
    """Of all elements as one vector."""
    return float(np.linalg.norm(np.asarray(value)))


def _vector(trajectory: Trajectory) -> np.ndarray:
    flat = [value.ravel().astype(np.float64) for value in trajectory.weights.values()]
    return np.concatenate(flat)
