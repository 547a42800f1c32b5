"""Bounds on the relative difference in norm between two computations of the same training steps.

On other devices or with other micro-batches, sums have another order and other rounding errors.
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
    """Returns the precision that layers round to, a key of `UNIT_ROUNDOFF`.

    The precision is `precision`, except that float32 on GPUs is "tensor_float_32" if TensorFlow's
    option for TensorFloat-32 is enabled.
    """
    tf32 = gpus and tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensor_float_32" if tf32 and precision == "float32" else precision


def bound(precision: str, path: float, length: float) -> float:
    """Returns the bound on a tensor's relative difference between runs on N replicas and on one.

    The difference is relative to `length`, the norm of the tensor, or `path` (the sum of the norms
    of its updates) if that is larger: updates may cancel, as those of a bias that stays around 0,
    but their errors, which are relative to the norm of each update, do not.

    In float32 the bound is 1e-5. Otherwise, with unit roundoff u, two gradients differ by about 4u.
    A layer rounds its gradient to the compute dtype, once on one replica and once for each chunk of
    the batch on several, whose norms add up to about twice that of the whole if they cancel: 2u. A
    kernel that sums in another order may round activations differently: another 2u.

    That also reverses the sign of a value near 0, or an order in a pooling window, for at most a
    fraction 2u of the units (1.6u of a unit normal distribution). Such a unit contributes to only
    one of the two gradients. The contributions to a gradient have unrelated signs, so its norm is
    proportional to the root of their number: it changes by a relative sqrt(2u).

    An optimizer that divides the first moment by the root of the second doubles both errors. They
    do not grow with the number of steps, unless the weights differ so much that their gradients do.
    """
    if precision == "float32":
        return FLOAT32_RUN
    u = UNIT_ROUNDOFF[precision]
    return 2 * (4 * u + (2 * u) ** 0.5) * path / length


def step_bound(precision: str, update: float, length: float, optimizer: str = "") -> float:
    """Returns the bound on the relative difference of all weights, as one vector, after one step.

    Both steps start from the same state. `update` is the norm of the step's update; `length` is the
    norm of the weights, or `update` if that is larger. In float32 the bound is tighter than that of
    `bound`, because no errors have accumulated. Otherwise it is `bound`, times 8 for Muon, which
    brings all singular values near 1 and so amplifies errors in the directions of small ones.
    """
    if precision == "float32":
        return FLOAT32_STEP
    amplification = 8 if optimizer == "muon" else 1
    return amplification * bound(precision, update, length)


def metric_bound(precision: str) -> float:
    """Returns the bound on the relative difference of a mean loss or gradient norm of two runs.

    After one step, a gradient norm has the error of its gradient, 4u, and a loss that of its
    activations, 2u. Over several steps, weights that differ by up to their bound double the error.
    Differences are relative to the larger of the value and its `Trajectory.typical_sizes`.
    """
    return FLOAT32_RUN if precision == "float32" else 8 * UNIT_ROUNDOFF[precision]


def step_metric_bound(precision: str) -> float:
    """Returns `metric_bound` for one step from the same state, before errors have accumulated."""
    return FLOAT32_STEP if precision == "float32" else 4 * UNIT_ROUNDOFF[precision]


def sign_flip_bound(precision: str, path: float, length: float, elements: int) -> float:
    """Returns the term to add to `bound` for a sign-based optimizer (Lion).

    Rounding can flip the sign of a value near zero: two updates then differ by twice their norm
    times the root of the fraction of such elements, at least one of the tensor. Values have an
    error of 8u, and are about 4 times denser near zero than elsewhere: the fraction is about 32u.
    `path` and `length` are as in `bound`; `elements` is the number of elements of the tensor.
    """
    fraction = max(32 * UNIT_ROUNDOFF[precision], 1 / elements)
    return 2 * fraction**0.5 * path / length
