"""How far apart two programs of the same mathematics may be: bounds from a model of rounding.

The same bits are asked only of one program that is run twice. Two programs (the engine and a loop
written by hand, XLA's code and TensorFlow's kernels, one device and several) add in another order
and fuse other products with other sums, as compiler and processor decide. Of them a test asserts a
difference in norm, and takes its bound from here. Nothing in it was measured on a machine.

**Sums.** Adding n terms rounds n times, each time by at most u = 2^-24 of a partial sum. The signs
of roundings are unrelated, so that they add up to about sqrt(n) u of the result and hardly ever to
`CERTAIN` times as much (Higham and Mary, "A new approach to probabilistic rounding error analysis",
2019, where all terms have one sign; "Sharper probabilistic backward error analysis", 2020, where
signs are unrelated and the result cancels to the root of the terms). Of two programs each has that
error. Sums that use one another's results add their roundings up: n is the number of all of them.

**Switches.** What rounding has moved may be on the other side of zero in a ReLU, or of its
neighbour in a max pool: a share of 2d of the units, where d is the error. It adds to one gradient
what it does not add to the other, which is the root of the share: `engine/verify/bounds.py`.

**Update rules.** A rule that divides a gradient by its root mean square has the relative error of
each element, which is d / x for an element of x times the tensor's norm per element. Of k normal
numbers the smallest have x = 1/k, 2/k and so on, so that the sum of squares is 1.6 (d k)^2, in norm
1.3 sqrt(k) d. No element is off by more than twice its move, which a share of d is: 2 sqrt(d). Muon
is as steep as 3.4445^5 = 485 for the direction of a small singular value: tests/unit/test_muon.py.

**Steps.** Errors of moves add up to their share of the path, the sum of the norms of all moves. The
weights are a sum themselves: of as many terms as there are steps.
"""

from __future__ import annotations

from math import prod, sqrt

import models

UNIT = 2.0**-24  # unit roundoff of float32: half of a unit in the last place, at most
CERTAIN = 4  # 2 exp(-4^2 / 2): a sum in 1,500 is further off, a norm of many sums is not
STEEPEST = 3.4445**5
DIVIDING = ("rmsprop", "adam", "adamw", "lamb")


def lengths(model: models.Sequential, batch: int) -> list[int]:
    """The number of terms of each sum on the way to a gradient: forward, backward, over the batch.

    Args:
      model: whose gradient it is.
      batch: examples.
    """
    found = [batch]
    for layer, shape in zip(model.layers, model.output_shapes, strict=True):
        places = batch * prod(shape[:-1])
        if isinstance(layer, models.BatchNorm):
            found += [places] * 4  # mean and variance, and what the gradient subtracts for each
        elif isinstance(layer, models.Convolution | models.Dense):
            *window, inputs, outputs = layer.kernel.shape
            found += [prod(window) * inputs, prod(window) * outputs, places]
    return found


def of_sums(*lengths: int) -> float:
    """The relative difference, in norm, of two programs' results.

    Args:
      lengths: numbers of terms of the sums on the way, each of which uses the one before.
    """
    return 2 * CERTAIN * sqrt(sum(lengths)) * UNIT


def of_switches(error: float) -> float:
    """The relative difference of two gradients of a network with ReLUs or max pools.

    Args:
      error: relative, of its activations and gradients without what switches.
    """
    return error + sqrt(2 * error)


def of_moves(error: float, optimizer: str, shape: tuple[int, ...]) -> float:
    """The relative difference of two moves of a tensor.

    Args:
      error: relative, of its gradients.
      optimizer: by name; none that takes signs.
      shape: of the tensor.
    """
    if optimizer == "muon" and len(shape) > 1:
        return STEEPEST * error
    if optimizer == "muon" or optimizer in DIVIDING:
        return min(max(1.0, 1.3 * sqrt(prod(shape))) * error, 2 * sqrt(error))
    return error


def of_weights(moves: float, path: float, length: float, steps: int) -> float:
    """The largest norm of the difference of a tensor after some steps, absolute.

    Args:
      moves: relative difference of its moves.
      path: sum of the norms of its moves.
      length: its norm.
      steps: how many.
    """
    return moves * path + of_sums(steps) * length
