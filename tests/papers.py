"""Reference implementations of the papers' formulas in float64 NumPy, without TensorFlow.

The module covers update rules, one variable at a time, the EMA of the weights, learning-rate
schedules and clipping.
"""

from __future__ import annotations

import math

import numpy as np


class Reference:
    """One variable with the state and the update rule of an optimizer.

    Args:
      name: optimizer name.
      weight: initial value.
      options: options of the optimizer; a `beta_2` of 0 selects the paper's default. `weight_decay`
        applies to matrices and kernels, under the rules that have weight decay.
    """

    def __init__(self, name, weight, options):
        self.weight = weight.astype(np.float64)
        self.first, self.second = np.zeros_like(self.weight), np.zeros_like(self.weight)
        self.is_matrix = weight.ndim > 1
        self.momentum, self.rho = options["momentum"], options["rho"]
        self.b1 = options["beta_1"]
        self.b2 = options["beta_2"] or (0.99 if name == "lion" else 0.999)
        self.epsilon = options["epsilon"]
        self.decay = options["weight_decay"] if self.is_matrix else 0.0
        self._rule = getattr(self, f"_{name}")

    def update(self, gradient, rate, turn):
        """Replaces `weight` by its value after an update.

        Args:
          gradient: gradient of the weight.
          rate: learning rate.
          turn: number of the update, from 1.
        """
        self.weight = self._rule(gradient.astype(np.float64), rate, turn)

    def _sgd(self, g, rate, turn):
        return self.weight - rate * g

    def _momentum(self, g, rate, turn):
        self.first = self.momentum * self.first - rate * g
        return self.weight + self.first

    def _nesterov(self, g, rate, turn):
        self.first = self.momentum * self.first - rate * g
        return self.weight + self.momentum * self.first - rate * g

    def _rmsprop(self, g, rate, turn):
        self.second = self.rho * self.second + (1 - self.rho) * g**2
        return self.weight - rate * g / np.sqrt(self.second + self.epsilon)

    def _moments(self, g):
        self.first = self.b1 * self.first + (1 - self.b1) * g
        self.second = self.b2 * self.second + (1 - self.b2) * g**2

    def _adam(self, g, rate, turn):
        self._moments(g)
        alpha = rate * np.sqrt(1 - self.b2**turn) / (1 - self.b1**turn)
        return self.weight - alpha * self.first / (np.sqrt(self.second) + self.epsilon)

    def _adamw(self, g, rate, turn):
        return self._adam(g, rate, turn) - rate * self.decay * self.weight

    def _lamb(self, g, rate, turn):
        self._moments(g)
        first, second = self.first / (1 - self.b1**turn), self.second / (1 - self.b2**turn)
        direction = first / (np.sqrt(second) + self.epsilon) + self.decay * self.weight
        ours, its = np.linalg.norm(self.weight), np.linalg.norm(direction)
        ratio = ours / its if self.is_matrix and ours and its else 1.0
        return self.weight - rate * ratio * direction

    def _lion(self, g, rate, turn):
        ahead = self.b1 * self.first + (1 - self.b1) * g
        # Distance of the sign's argument from 0, relative to its summands.
        sizes = self.b1 * np.abs(self.first) + (1 - self.b1) * np.abs(g)
        self.margin = np.min(np.abs(ahead[sizes > 0]) / sizes[sizes > 0], initial=1.0)
        self.first = self.b2 * self.first + (1 - self.b2) * g
        return self.weight - rate * (np.sign(ahead) + self.decay * self.weight)

    def _muon(self, g, rate, turn):
        if not self.is_matrix:
            return self._adam(g, rate, turn)
        self.first = self.momentum * self.first + g
        ahead = (g + self.momentum * self.first).reshape(-1, g.shape[-1])
        scale = 0.2 * np.sqrt(max(ahead.shape))
        direction = scale * orthogonalized(ahead, self.epsilon).reshape(g.shape)
        return self.weight - rate * (direction + self.decay * self.weight)


def averaged(average, weight, decay, turn):
    """Returns the EMA of a weight after an update.

    Args:
      average: EMA before the update.
      weight: weight after the update.
      decay: largest decay.
      turn: number of the update, from 1.
    """
    kept = min(decay, turn / (9 + turn))
    return kept * average + (1 - kept) * weight


def rate(
    name,
    step,
    total,
    peak,
    *,
    warmup=0,
    decay_rate=0.1,
    decay_steps=0,
    final_fraction=0.0,
    points=((0, 1), (0.5, 0.1), (0.75, 0.01)),
):
    """Returns the learning rate of a step.

    Args:
      name: "constant", "cosine", "linear", "piecewise_linear", "piecewise_constant", "step",
        "exponential", "one_cycle", or "plateau", whose rate is that before any evaluation.
      step: number of the step, from 0.
      total: number of steps of the run.
      peak: largest learning rate.
      warmup: number of steps of linear warmup.
      decay_rate: factor of "step" and "exponential".
      decay_steps: steps after which the factor applies; 0: a third of the steps after the warmup.
      final_fraction: last learning rate of "cosine" and "linear", as a fraction of the peak.
      points: (share of the steps after the warmup, factor of the peak) of the piecewise schedules.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    step, total = step - warmup, total - warmup
    if name in ("constant", "plateau"):  # no evaluation has reduced it
        return peak
    if name == "cosine":
        low = peak * final_fraction
        return low + 0.5 * (peak - low) * (1 + math.cos(math.pi * step / total))
    if name == "linear":
        return peak * (1 - (1 - final_fraction) * step / total)
    if name == "piecewise_linear":
        return peak * np.interp(step / total, *zip(*points, strict=True))
    if name == "piecewise_constant":
        return peak * [factor for share, factor in points if step / total >= share][-1]
    if name == "step":
        return peak * decay_rate ** (step // decay_steps if decay_steps else 3 * step // total)
    if name == "exponential":
        return peak * decay_rate ** (step / decay_steps if decay_steps else 3 * step / total)
    return _pytorch_one_cycle(step, total, peak)


def _pytorch_one_cycle(step, total, peak):
    """Returns the rate of PyTorch's OneCycleLR with default arguments: two phases, cosine."""
    pct_start, div_factor, final_div_factor = 0.3, 25.0, 1e4
    initial = peak / div_factor
    phases = [
        (float(pct_start * total) - 1, initial, peak),
        (total - 1, peak, initial / final_div_factor),
    ]
    start_step = 0.0
    for index, (end_step, start, end) in enumerate(phases):
        if step <= end_step or index == len(phases) - 1:
            fraction = (step - start_step) / (end_step - start_step)
            return end + (start - end) / 2.0 * (math.cos(math.pi * fraction) + 1)
        start_step = end_step


def clipped(gradients, norm=0.0, value=0.0):
    """Returns float64 gradients with clipped elements and then a clipped global norm.

    Args:
      gradients: arrays of any shapes.
      norm: largest global norm; 0: no limit.
      value: largest absolute value of an element; 0: no limit.
    """
    gradients = [np.asarray(gradient, np.float64) for gradient in gradients]
    if value:
        gradients = [np.clip(gradient, -value, value) for gradient in gradients]
    length = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
    factor = norm / length if norm and length > norm else 1.0
    return [gradient * factor for gradient in gradients]


def orthogonalized(matrix, epsilon):
    """Returns the result of Muon's five iterations on a matrix, float64.

    They are applied to the singular values, divided by the sum of their norm and `epsilon`.
    """
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    values /= np.linalg.norm(values) + epsilon
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right
