"""Derives bounds on the rounding errors between two computations of the same steps.

With another number of devices or of micro-batches, sums are computed in another order and rounded
in other places. The bounds are on relative differences in norm.
"""

from __future__ import annotations

import tensorflow as tf

# Half the distance between 1 and the next larger floating-point number.
UNIT_ROUNDOFF = {
    "float32": 2.0**-24,
    "mixed_bfloat16": 2.0**-8,
    "mixed_float16": 2.0**-11,
    "tensor_float_32": 2.0**-11,
}
FLOAT32_RUN = 1e-5
FLOAT32_STEP = 1e-6


def arithmetic(precision: str, gpus: bool) -> str:
    """Returns the precision that layers round to: `precision`, or "tensor_float_32".

    TensorFloat-32 replaces float32 on GPUs where TensorFlow's option for it is enabled.
    """
    tf32 = gpus and tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensor_float_32" if tf32 and precision == "float32" else precision


def bound(precision: str, path: float, length: float) -> float:
    """Returns the bound on a tensor's relative difference between runs on N replicas and on one.

    The difference is relative to `length`, the norm of the tensor, or `path` (the sum of the norms
    of its updates) if that is larger. Each update has an error relative to its own norm. Updates
    may cancel, as those of a bias that stays around 0, but their errors do not.

    In float32 the bound is 1e-5. Otherwise a layer rounds its gradient to the compute dtype, with a
    relative error of the unit roundoff u. One replica rounds once. Several replicas round once for
    each chunk of the batch. Their errors add up to at most u times the sum of the chunks' norms,
    which is about twice the norm of the whole gradient if the chunks cancel. A kernel that sums in
    another order may also round activations differently, which adds an error of 2u. So two
    gradients differ by about 4u.

    Two values that differ by 2u may have different signs, or a different order in a pooling window:
    1.6u, at most 2u, of a unit normal distribution is that near. Such a unit contributes to only
    one of the two gradients. The gradient of a batch is a sum of contributions with unrelated
    signs, so its norm is proportional to the square root of their number; removing a fraction of 2u
    of them changes it by a relative sqrt(2u). Without layers that switch (ReLU, max pooling), the
    error is 4u, as observed; switches are rare and their effect is far larger.

    In an optimizer that divides the first moment by the root of the second, both have these errors,
    which doubles the bound. The relative error does not grow over a path of updates, as long as the
    weights do not differ so much that their gradients differ for that reason.
    """
    if precision == "float32":
        return FLOAT32_RUN
    u = UNIT_ROUNDOFF[precision]
    return 2 * (4 * u + (2 * u) ** 0.5) * path / length


def step_bound(precision: str, update: float, length: float, optimizer: str = "") -> float:
    """Returns the bound for a single step from the same state, for all weights as one vector.

    In float32 the bound is 1e-6, because errors have not accumulated yet. Muon brings all singular
    values of a gradient near 1. So it amplifies the small ones and the errors in their directions;
    the factor grows with the ratio of singular values, and is several-fold in a mini-batch.

    `update` is the norm of the update, and `length` that of the weights or of the update.
    """
    if precision == "float32":
        return FLOAT32_STEP
    amplification = 8 if optimizer == "muon" else 1
    return amplification * bound(precision, update, length)


def metric_bound(precision: str) -> float:
    """Returns the bound on the relative difference of a loss or of a gradient norm.

    After one step, a gradient norm has the error of its gradient, 4u, and a loss that of its
    activations, 2u. Over several steps, weights that differ by up to their bound double the error.
    The differences are relative to `differences.typical_sizes` if those are larger.
    """
    return FLOAT32_RUN if precision == "float32" else 8 * UNIT_ROUNDOFF[precision]


def step_metric_bound(precision: str) -> float:
    """Returns the bound of `metric_bound` for a single step from the same state."""
    return FLOAT32_STEP if precision == "float32" else 4 * UNIT_ROUNDOFF[precision]


def sign_flip_bound(precision: str, path: float, length: float, elements: int) -> float:
    """Returns the term that a sign-based optimizer (Lion) adds to the bound of a tensor.

    Rounding can flip the sign of a value near zero, so that the element is updated in the opposite
    direction. Two updates then differ by twice their norm times the square root of the fraction of
    such elements. The density of gradient values is about 4 times higher near zero than elsewhere.
    So for values with an error of 8u, that fraction is about 32u. It is at least one element of a
    tensor. `path` and `length` are those of `bound`.
    """
    fraction = max(32 * UNIT_ROUNDOFF[precision], 1 / elements)
    return 2 * fraction**0.5 * path / length
