"""Computes bounds on the relative difference, in norm, between two computations of the same steps.

Two computations on different devices, or with different micro-batches, add the same terms in
different orders, so that their rounding errors differ.
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

    Args:
      precision: value of `--precision`.
      gpus: whether the devices are GPUs.

    Returns:
      "tensor_float_32" for float32 on GPUs if TensorFlow's option for TensorFloat-32 is enabled,
      else `precision`.
    """
    tf32 = gpus and tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensor_float_32" if tf32 and precision == "float32" else precision


def bound(precision: str, path: float, length: float) -> float:
    """Returns the bound on a tensor's relative difference between runs on N replicas and on one.

    In float32, and for a tensor that no update moved, the bound is 1e-5. In any other precision, of
    unit roundoff u, the bound is 2 (4u + sqrt(2u)) path / length. Two gradients differ by about
    4u + sqrt(2u):

    - 2u: layers round gradients to the compute dtype. One replica rounds the gradient of the whole
      batch, each of several replicas the gradient of a chunk. The norms of the chunks' gradients,
      where these cancel, add up to about twice the norm of the whole gradient.
    - 2u: a kernel that sums in another order may round activations differently.
    - sqrt(2u): this rounding also reverses the sign of a value near 0, or an order in a pooling
      window, for at most a fraction 2u of the units (1.6u of a unit normal distribution). Such a
      unit contributes to only one of the two gradients. The contributions to a gradient have
      unrelated signs, so the norm of a gradient is proportional to the root of their number.

    An optimizer that divides the first moment by the root of the second doubles these errors, hence
    the factor 2. The errors do not grow with the number of steps, unless the weights differ so much
    that the gradients do.

    Args:
      precision: key of `UNIT_ROUNDOFF`.
      path: sum of the norms of the tensor's updates. Updates may cancel, as those of a bias that
        stays around 0, but their errors, which are relative to the norm of each update, do not.
      length: norm by which the difference is divided: that of the tensor, or `path` if larger.
    """
    if precision == "float32" or not path:  # such as a bias that a softmax cancels, which stays 0
        return FLOAT32_RUN
    u = UNIT_ROUNDOFF[precision]
    return 2 * (4 * u + (2 * u) ** 0.5) * path / length


def step_bound(precision: str, update: float, length: float, optimizer: str = "") -> float:
    """Returns the bound on the relative difference of all weights, as one vector, after one step.

    Both computations of the step start from the same state. In float32 the bound is 1e-6, tighter
    than the result of `bound`, because no errors have accumulated. In any other precision the bound
    is the result of `bound`, times 8 for Muon, which brings all singular values of an update near 1
    and so amplifies errors in the directions of small ones.

    Args:
      precision: key of `UNIT_ROUNDOFF`.
      update: norm of the step's update of all weights.
      length: norm by which the difference is divided: that of all weights, or `update` if larger.
      optimizer: value of `--optimizer`.
    """
    if precision == "float32":
        return FLOAT32_STEP
    amplification = 8 if optimizer == "muon" else 1
    return amplification * bound(precision, update, length)


def metric_bound(precision: str) -> float:
    """Returns the bound on the relative difference of a mean loss or gradient norm of two runs.

    In float32 the bound is 1e-5; in any other precision, of unit roundoff u, the bound is 8u. After
    one step, the error of a gradient norm is that of the gradient, 4u, and the error of a loss is
    that of the activations, 2u. Over several steps, weights that differ by up to their bound double
    the error. Differences are relative to the value of one run, or to the entry for the metric in
    `Trajectory.typical_sizes` if larger. `precision` is a key of `UNIT_ROUNDOFF`.
    """
    return FLOAT32_RUN if precision == "float32" else 8 * UNIT_ROUNDOFF[precision]


def step_metric_bound(precision: str) -> float:
    """Returns the bound on the relative difference of a loss or gradient norm after one step.

    Both computations of the step start from the same state, so that no errors have accumulated. In
    float32 the bound is 1e-6; in any other precision, of unit roundoff u, the bound is 4u. See
    `metric_bound`.
    """
    return FLOAT32_STEP if precision == "float32" else 4 * UNIT_ROUNDOFF[precision]


def sign_flip_bound(precision: str, path: float, length: float, elements: int) -> float:
    """Returns the term to add to `bound` for a sign-based optimizer (Lion).

    Rounding can flip the sign of a value near 0. Two updates then differ by twice their norm times
    the root of the fraction of elements whose sign is flipped. Values have an error of 8u, where u
    is the unit roundoff, and are about 4 times denser near 0 than elsewhere. So the fraction is
    about 32u; the bound assumes at least one element.

    Args:
      precision: key of `UNIT_ROUNDOFF`.
      path: as in `bound`.
      length: as in `bound`.
      elements: number of elements of the tensor, 1 or more.
    """
    if not path:
        return 0.0
    fraction = max(32 * UNIT_ROUNDOFF[precision], 1 / elements)
    return 2 * fraction**0.5 * path / length
