"""Bounds on the difference between two computations of the same step, and their derivation.

On another number of devices, or in other micro-batches, sums are taken in another order and are
rounded in other places. The bounds are on relative differences in norm.
"""

from __future__ import annotations

import tensorflow as tf

# Half the distance between two neighboring floating-point numbers at 1.
UNIT_ROUNDOFF = {
    "mixed_bfloat16": 2.0**-8,
    "mixed_float16": 2.0**-11,
    "tensor_float_32": 2.0**-11,
}
FLOAT32_UNIT = 2.0**-24
FLOAT32_RUN = 1e-5
FLOAT32_STEP = 1e-6


def arithmetic(precision: str, gpus: bool) -> str:
    """Returns what layers round to: `precision`, or "tensor_float_32" for float32 on some GPUs.

    Args:
      precision: name of the precision policy.
      gpus: whether the layers compute on GPUs.
    """
    if (
        precision == "float32"
        and gpus
        and tf.config.experimental.tensor_float_32_execution_enabled()
    ):
        return "tensor_float_32"
    return precision


def bound(precision: str, path: float, length: float) -> float:
    """Returns the bound on a tensor's relative difference after some steps: N replicas and one.

    The difference is relative to the norm of the tensor, or to its path (the sum of the norms of
    its updates) where that is longer. Each update has an error relative to itself. Where updates
    cancel, as those of a bias that stays around 0 do, their errors do not.

    In float32 the bound is 1e-5. Otherwise a gradient leaves a layer rounded to the compute dtype,
    a relative error of the unit roundoff u. One replica rounds once. Several round once for each
    portion, and the errors add up to at most u times the sum of the portions' norms, about twice
    the norm of the whole where portions cancel. Where a kernel adds in another order, activations
    of a row may round the other way, an error of 2u again. So two gradients differ by about 4u.

    Two values that differ by 2u may be on different sides of zero, or of a neighbor in a pooling
    window: 1.6u of a unit normal distribution is that near, at most 2u. Such a unit contributes to
    one gradient and not to the other. The gradient of a batch is a sum of contributions with
    unrelated signs, so its norm is the root of their number; removing a share of 2u changes it by
    the root of 2u. Without layers that switch, the error is 4u, as observed; switches are rare and
    far larger.

    An optimizer that divides a mean gradient by the root of a mean square has both errors in its
    updates, which doubles the bound. The relative error does not grow over a path of updates, as
    long as weights do not differ so much that their gradients differ for that reason.

    Args:
      precision: precision that layers round to.
      path: sum of the norms of the tensor's updates.
      length: norm that the difference is relative to: the tensor's at the end, or its path.
    """
    if precision == "float32":
        return FLOAT32_RUN
    u = UNIT_ROUNDOFF[precision]
    return 2 * (4 * u + (2 * u) ** 0.5) * path / length


def step_bound(precision: str, move: float, length: float, optimizer: str = "") -> float:
    """Returns the bound for a single step from the same state, all weights as one vector.

    In float32 the bound is 1e-6: no error has built up yet. Muon brings all singular values of a
    gradient near 1. It amplifies the small ones, and with them the errors in their directions: the
    more, the further singular values are apart, several times in a mini-batch's gradient.

    Args:
      precision: precision that layers round to.
      move: norm of the update.
      length: norm of the weights after the step, or of the update where that is larger.
      optimizer: name of the optimizer.
    """
    if precision == "float32":
        return FLOAT32_STEP
    lifted = 8 if optimizer == "muon" else 1
    return lifted * bound(precision, move, length)


def metric_bound(precision: str) -> float:
    """Returns the bound on the relative difference of a loss or of a gradient norm.

    In one step a norm has the error of its gradient, 4u, and a loss that of its activations, 2u.
    Over several steps, weights that differ by up to their bound add as much again. The differences
    are relative to the values at the start of a run where those are larger, see
    `differences.typical_sizes`.
    """
    return FLOAT32_RUN if precision == "float32" else 8 * UNIT_ROUNDOFF[precision]


def step_metric_bound(precision: str) -> float:
    """Returns the same bound for a single step from the same state."""
    return FLOAT32_STEP if precision == "float32" else 4 * UNIT_ROUNDOFF[precision]


def sign_flip_bound(precision: str, path: float, length: float, elements: int) -> float:
    """Returns what an update rule that takes signs adds to the bound of a tensor.

    Rounding can flip the sign of a value near zero, and the element is updated in the opposite
    direction. Two steps then differ by twice the norm of the step times the root of the share of
    such elements. Gradients are near zero more often than anywhere else, by a factor of about 4.
    So where values have an error of 8u, that share is about 32u. Any tensor may have one such
    element.

    Args:
      precision: precision that layers round to.
      path: sum of the norms of the tensor's updates.
      length: norm that the difference is relative to, see `bound`.
      elements: number of elements of the tensor.
    """
    share = 32 * (FLOAT32_UNIT if precision == "float32" else UNIT_ROUNDOFF[precision])
    return 2 * max(share, 1 / elements) ** 0.5 * path / length
