"""Muon: orthogonalized updates of matrices, and Adam for the other weights."""

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.build import build_optimizer
from engine.optim.muon import orthogonalized
from tests import papers
from tests.harness import same_bits

EPSILON = 1e-7
SHAPES = ((7, 5), (4, 40), (32, 32), (18, 4), (1, 6))
each_shape = pytest.mark.parametrize("shape", SHAPES)


def random(*shape):
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def found(matrix, epsilon=EPSILON, **how):
    return tf.function(orthogonalized, **how)(tf.constant(matrix), epsilon).numpy()


def after(name, weights, gradients, **options):
    """Returns the weights after three updates by the optimizer `name`."""
    optimizer = build_optimizer(name, weight_decay=0.0, **options)
    variables = [tf.Variable(weight) for weight in weights]
    optimizer.create_slots(variables)
    for update in range(3):
        given = [tf.constant(gradient * (update + 1)) for gradient in gradients]
        rate = tf.constant(0.01, tf.float64)
        optimizer.apply(given, variables, rate, tf.constant(update, tf.int64))
    return [variable.numpy() for variable in variables]


def kinds(shape):
    """Yields matrices: well conditioned ones, and ones with singular values of rounding size."""
    yield random(*shape)
    yield np.ones(shape, np.float32)
    yield np.outer(random(shape[0]), random(shape[1]))
    left, values, right = np.linalg.svd(random(*shape), full_matrices=False)
    yield np.float32((left * np.geomspace(1, 1e-4, len(values))) @ right)


# The slope of the five polynomials together is largest at 0, where it is 3.4445^5 = 485: a rounding
# error of float32 in the direction of a small singular value grows by that factor. The division by
# the norm and each of the five iterations round by about 2^-24 of a norm of about 1: the bound is
# 6 * 485 * 2^-24 = 1.7e-4. It is for one update; 50 updates change a weight by some hundredths.
@pytest.mark.many_graphs
@each_shape
def test_matches_polynomials(shape):
    for matrix in kinds(shape):
        wanted = papers.orthogonalized(matrix, EPSILON)
        assert np.linalg.norm(found(matrix) - wanted) < 1.7e-4
        assert np.linalg.norm(found(matrix, jit_compile=True) - wanted) < 1.7e-4


# Every singular value of these matrices is far above 0, where the slope is at most 10.
def test_matches_polynomials_closely():
    """The result is more accurate if all singular values are far above 0."""
    for shape in ((7, 5), (18, 4), (4, 40)):
        left, values, right = np.linalg.svd(random(*shape), full_matrices=False)
        matrix = np.float32((left * np.linspace(1.0, 0.7, len(values))) @ right)
        wanted = papers.orthogonalized(matrix, EPSILON)
        assert np.linalg.norm(found(matrix) - wanted) < 6 * 10 * 2**-24


@each_shape
def test_singular_values_near_one(shape):
    """Singular values are near 1, and an update is about as large as Adam's."""
    direction = found(random(*shape))
    values = np.linalg.svd(direction, compute_uv=False)
    assert values.min() > 0.68 and values.max() < 1.21
    weight = np.zeros(shape, np.float32)
    (moved,) = after("muon", [weight], [random(*shape)])
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(3 * 0.01 * 0.2, rel=0.35)


@pytest.mark.parametrize("epsilon", [EPSILON, 1.2e-38])
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e-2, 1e20, 1e37])
def test_direction_independent_of_scale(scale, epsilon):
    """The direction does not depend on the gradient's size until epsilon dominates."""
    direction = found(np.float32(random(7, 5) * scale), epsilon)
    if scale > epsilon * 1e4:
        assert direction == pytest.approx(found(random(7, 5)), rel=1e-2, abs=1e-3)
    else:
        assert np.linalg.norm(direction) < 3


@pytest.mark.parametrize("epsilon", [EPSILON, 1.2e-38])
def test_zero_gradient(epsilon):
    direction = found(np.zeros((7, 5), np.float32), epsilon)
    assert direction.tolist() == np.zeros((7, 5)).tolist()


def test_kernel_as_patch_matrix():
    """A kernel is updated as the matrix [height * width * in, out]."""
    weight, gradient = random(3, 3, 2, 4), random(3, 3, 2, 4) ** 2
    (kernel,) = after("muon", [weight], [gradient])
    (matrix,) = after("muon", [weight.reshape(18, 4)], [gradient.reshape(18, 4)])
    assert same_bits([kernel.reshape(18, 4)], [matrix])


def test_vectors_use_adam():
    weights, gradients = [random(4), random(2, 3), random(6)], [random(4), random(2, 3), random(6)]
    options = {"beta_1": 0.8, "beta_2": 0.98, "epsilon": 1e-5}
    bias, _, scale = after("muon", weights, gradients, **options)
    assert same_bits(
        [bias, scale], after("adam", weights[::2], gradients[::2], momentum=0.5, **options)
    )
    optimizer = build_optimizer("muon", weight_decay=0.0)
    optimizer.create_slots([tf.Variable(weight) for weight in weights])
    shapes = sorted(tuple(slot.shape) for slot in optimizer.variables)
    assert shapes == [(2, 3), (4,), (4,), (6,), (6,)]
