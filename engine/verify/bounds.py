"""How far apart two computations of the same step may be: the bounds, and why.

Sums are taken in another order on another number of devices, or in other micro-batches, and round
in other places. What is asserted of them is a relative difference in norm.
"""

from __future__ import annotations

import tensorflow as tf

# Half the distance between two neighbouring numbers at 1.
UNIT_ROUNDOFF = {
    "mixed_bfloat16": 2.0**-8,
    "mixed_float16": 2.0**-11,
    "tensor_float_32": 2.0**-11,
}
FLOAT32_UNIT = 2.0**-24
FLOAT32_RUN = 1e-5
FLOAT32_STEP = 1e-6


def arithmetic(precision: str, gpus: bool) -> str:
    """What layers round to: the precision, or "tensor_float_32" where a GPU makes it of float32.

    Args:
      precision: a policy by name.
      gpus: whether it is computed on GPUs.
    """
    if (
        precision == "float32"
        and gpus
        and tf.config.experimental.tensor_float_32_execution_enabled()
    ):
        return "tensor_float_32"
    return precision


def bound(precision: str, path: float, length: float) -> float:
    """The largest relative difference between N replicas and one, of one tensor after some steps.

    It is relative to the length of the tensor, or to that of its path where that is longer: each
    move has an error relative to itself, and where the moves cancel, as those of a bias that stays
    around 0 do, their errors do not.

    In float32 a flat 1e-5. Else a gradient leaves a layer rounded to the compute dtype, a relative
    error of the unit roundoff u: once on one replica, once for each portion on several, where the
    errors add up to at most u times the sum of the portions' sizes, about twice the whole where
    portions cancel each other. Activations of a row may be rounded the other way where a kernel
    adds in another order, which is an error of 2u again. So two gradients differ by about 4u.

    What is 2u apart may be on either side of zero, or of its neighbour in a pool: of a unit normal
    distribution 1.6u is that near, at most 2u. Such a unit adds to one gradient what it does not to
    the other. The gradient of a batch is a sum of contributions with unrelated signs, so that its
    norm is the root of their number; leaving out a share of 2u changes it by the root of 2u. With
    layers that switch nothing 4u is all there is, and seen; switches are rare and far larger.

    An optimizer that divides a mean gradient by the root of a mean square has both errors in its
    moves: twice as much. No more than that builds up over a path of moves, while weights are not
    yet so far apart that their gradients differ for that reason.

    Args:
      precision: of the layers.
      path: sum of the norms of the tensor's moves.
      length: what the difference is relative to: its norm at the end, or its path.
    """
    if precision == "float32":
        return FLOAT32_RUN
    u = UNIT_ROUNDOFF[precision]
    return 2 * (4 * u + (2 * u) ** 0.5) * path / length


def step_bound(precision: str, move: float, length: float, optimizer: str = "") -> float:
    """The same for a single step from the same state, all weights as one vector.

    In float32 a flat 1e-6: nothing has built up yet. Muon brings all singular values of a gradient
    near 1, and with the small ones the errors in their directions: the more, the further they are
    from each other, several times in a mini-batch's gradient.

    Args:
      precision: of the layers.
      move: norm of the step.
      length: norm of the weights after it, or of the step where that is longer.
      optimizer: by name.
    """
    if precision == "float32":
        return FLOAT32_STEP
    lifted = 8 if optimizer == "muon" else 1
    return lifted * bound(precision, move, length)


def figure_bound(precision: str) -> float:
    """The largest relative difference of a loss or of a gradient's norm.

    In one step a norm has the error of its gradient, 4u, and a loss that of its activations, 2u.
    Over some steps, weights that are apart by as much as they may be add as much again. Both are
    relative to what they are at the start of a run where they have become smaller since, see
    `differences.usual`.
    """
    return FLOAT32_RUN if precision == "float32" else 8 * UNIT_ROUNDOFF[precision]


def step_figure_bound(precision: str) -> float:
    """The same for a single step from the same state."""
    return FLOAT32_STEP if precision == "float32" else 4 * UNIT_ROUNDOFF[precision]


def flips(precision: str, path: float, length: float, elements: int) -> float:
    """What an update rule that takes signs adds to the bound of a tensor.

    Of a number near zero a rounding turns the sign, and the element goes the other way: two steps
    differ by twice the length of the step times the root of the share of such elements. Gradients
    are more often near zero than anywhere else, by a factor of 4 or so, so where numbers have an
    error of 8u that share is about 32u. Any tensor may have one.

    Args:
      precision: of the layers.
      path: sum of the norms of the tensor's moves.
      length: what the difference is relative to, see `bound`.
      elements: of the tensor.
    """
    share = 32 * (FLOAT32_UNIT if precision == "float32" else UNIT_ROUNDOFF[precision])
    return 2 * max(share, 1 / elements) ** 0.5 * path / length
