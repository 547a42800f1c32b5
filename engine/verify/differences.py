"""How far two runs are apart, and how far they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from engine import metrics
from engine.verify import bounds
from engine.verify.trajectory import Trajectory


@dataclass(frozen=True)
class Difference:
    """A relative difference in norm, see `difference`, and its bound."""

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


def difference(one: np.ndarray | float, other: np.ndarray | float, scale: float = 0.0) -> float:
    """Returns the norm of `one - other`, relative to that of `one`.

    Args:
      one: of any shape.
      other: of the same shape.
      scale: what it is relative to where the norm of `one` is smaller: of the numbers that were
        added up and rounded, where `one` is what is left of them. 0 or more.

    Returns:
      0 where they are the same, tensors of zeros too; may be nan or infinite.
    """
    with np.errstate(invalid="ignore"):
        apart, length = _norm(np.subtract(one, other)), max(_norm(one), scale)
    return apart / length if apart and length else apart and float("inf")


def usual(trajectory: Trajectory) -> dict[str, float]:
    """Returns the size that loss, metrics and gradient have in a run from its first step.

    A loss near 0 is the difference of larger numbers, cross-entropy that of a logit and the log of
    a sum of exponentials, and its rounding error is relative to those. So is that of the gradient,
    whose contributions cancel the more, the better the examples are fitted. They are of the size
    that loss and gradient had when little was learned.

    Returns:
      The absolute values of the means over the steps, by name, "gradient norm" among them; empty
      where no step moved the weights.
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
    """Of each tensor of the model and its average, of loss and gradient, after any steps.

    Args:
      one: a run.
      other: the same on other devices, once in the same state.
      arithmetic: what layers round to, see `bounds.arithmetic`.
      sizes: of loss and gradient, see `usual`; none: their own.
    """
    found = []
    for name, value in one.weights.items():
        path = one.path[name]
        length = max(_norm(value), path)  # a bias around 0 is what is left of its moves
        allowed = bounds.bound(arithmetic, path, length) if length else 0.0
        if length and _optimizer(one) == "lion":
            allowed += bounds.flips(arithmetic, path, length, value.size)
        found.append(Difference(name, difference(value, other.weights[name], path), allowed))
    return found + _figures(one, other, bounds.figure_bound(arithmetic), sizes)


def as_a_whole(
    one: Trajectory,
    other: Trajectory,
    arithmetic: str,
    sizes: Mapping[str, float] = MappingProxyType({}),
) -> list[Difference]:
    """Of all weights as one vector, of loss and gradient, after one step from the same state.

    Args: as `tensors`.
    """
    ours, theirs = _vector(one), _vector(other)
    move = _norm(np.array(list(one.path.values())))
    length = max(_norm(ours), move)
    allowed = bounds.step_bound(arithmetic, move, length, _optimizer(one))
    if _optimizer(one) == "lion":
        allowed += bounds.flips(arithmetic, move, length, ours.size)
    apart = Difference("weights", difference(ours, theirs, move), allowed)
    return [apart, *_figures(one, other, bounds.step_figure_bound(arithmetic), sizes)]


def _optimizer(trajectory: Trajectory) -> str:
    return trajectory.parts.config.optimization.optimizer


def _figures(
    one: Trajectory, other: Trajectory, allowed: float, sizes: Mapping[str, float]
) -> list[Difference]:
    theirs = other.figures
    return [
        Difference(name, difference(figure, theirs[name], sizes.get(name, 0.0)), allowed)
        for name, figure in one.figures.items()
    ]


def _norm(value: np.ndarray | float) -> float:
    """Of all elements as one vector."""
    return float(np.linalg.norm(np.asarray(value)))


def _vector(trajectory: Trajectory) -> np.ndarray:
    flat = [value.ravel().astype(np.float64) for value in trajectory.weights.values()]
    return np.concatenate(flat)
