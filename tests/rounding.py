"""Bounds on the difference of two programs of the same mathematics, from a model of rounding.

Tests require equal bits only of one program that runs twice. Two programs (the engine and a
handwritten loop, XLA's code and TensorFlow's kernels, one device and several) add in different
orders and fuse different products and sums, as compiler and processor decide. For them a test
asserts a bound on the difference in norm, from this module. No bound is measured on a machine.

**Sums.** Adding n terms rounds n times, each time by at most u = 2^-24 of a partial sum. The signs
of the roundings are unrelated, so they add up to about sqrt(n) u of the result, and hardly ever to
`CERTAIN` times as much (Higham and Mary, "A new approach to probabilistic rounding error analysis",
2019, for terms of one sign; "Sharper probabilistic backward error analysis", 2020, for unrelated
signs, where the result cancels to the root of the terms). Each of two programs has that error.
Roundings of sums of sums add up: n is the total number of terms.

**Switches.** Rounding can move an activation to the other side of zero in a ReLU, or past its
neighbour in a max pool. This affects a fraction 2d of the units, where d is the error. These units
contribute to only one of the two gradients, so the relative difference is the square root of that
fraction: `engine/verify/bounds.py`.

**Update rules.** A rule that divides a gradient by its root mean square has the relative error of
each element: d / x for an element of x times the tensor's norm per element. The smallest of k
normal numbers have x = 1/k, 2/k and so on, so the sum of squares is 1.6 (d k)^2, in norm
1.3 sqrt(k) d. No element differs by more than twice its update, which is the case for a fraction d
of the elements: 2 sqrt(d). The slope of Muon is up to 3.4445^5 = 485, in the direction of a small
singular value: tests/unit/test_muon.py.

**Steps.** Errors of updates add up to the same fraction of the path, the sum of the norms of all
updates. The weights are a sum as well, with one term per step.
"""

from __future__ import annotations

from math import prod, sqrt

from tapeline import models

UNIT = 2.0**-24  # unit roundoff of float32: at most half a unit in the last place
CERTAIN = 4  # 2 exp(-4^2 / 2): 1 of 1,500 sums exceeds it, a norm of many sums does not
STEEPEST = 3.4445**5
DIVIDING = ("rmsprop", "adam", "adamw", "lamb")


def lengths(model: models.Sequential, batch: int) -> list[int]:
    """Returns the number of terms of each sum in a gradient: forward, backward and over the batch.

    Args:
      model: the model.
      batch: number of examples.
    """
    found = [batch]
    for layer, shape in zip(model.layers, model.output_shapes, strict=True):
        places = batch * prod(shape[:-1])
        if isinstance(layer, models.BatchNorm):
            found += [places] * 4  # mean, variance and the gradient's term for each
        elif isinstance(layer, models.Convolution | models.Dense):
            *window, inputs, outputs = layer.kernel.shape
            found += [prod(window) * inputs, prod(window) * outputs, places]
    return found


def of_sums(*lengths: int) -> float:
    """Returns the bound on the relative difference, in norm, of two programs' results.

    Args:
      *lengths: numbers of terms of successive sums, each over results of the previous one.
    """
    return 2 * CERTAIN * sqrt(sum(lengths)) * UNIT


def of_switches(error: float) -> float:
    """Returns the bound on the relative difference of gradients with ReLUs or max pools.

    Args:
      error: relative error of the activations and gradients without switches.
    """
    return error + sqrt(2 * error)


def of_moves(error: float, optimizer: str, shape: tuple[int, ...]) -> float:
    """Returns the bound on the relative difference, in norm, of two updates of a tensor.

    Args:
      error: relative error of the gradients.
      optimizer: optimizer name; not one that uses signs, such as Lion.
      shape: shape of the tensor.
    """
    if optimizer == "muon" and len(shape) > 1:
        return STEEPEST * error
    if optimizer == "muon" or optimizer in DIVIDING:
        return min(max(1.0, 1.3 * sqrt(prod(shape))) * error, 2 * sqrt(error))
    return error


def of_weights(moves: float, path: float, length: float, steps: int) -> float:
    """Returns the bound on the norm of the difference of a tensor in two trainings.

    Args:
      moves: relative difference of the updates.
      path: sum of the norms of the updates.
      length: norm of the tensor.
      steps: number of steps.
    """
    return moves * path + of_sums(steps) * length
