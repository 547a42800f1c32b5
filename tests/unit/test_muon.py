"""Muon: what a matrix becomes, and what is left to Adam."""

import numpy as np
import pytest
import tensorflow as tf

from engine import optimizers
from engine.optimizers.muon import orthogonalized
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
    """Weights after three updates."""
    optimizer = optimizers.build(name, weight_decay=0.0, **options)
    variables = [tf.Variable(weight) for weight in weights]
    optimizer.create_slots(variables)
    for update in range(3):
        given = [tf.constant(gradient * (update + 1)) for gradient in gradients]
        rate = tf.constant(0.01, tf.float64)
        optimizer.apply(given, variables, rate, tf.constant(update, tf.int64))
    return [variable.numpy() for variable in variables]


def kinds(shape):
    """Matrices from the best conditioned to those whose small singular values are roundings."""
    yield random(*shape)
    yield np.ones(shape, np.float32)
    yield np.outer(random(shape[0]), random(shape[1]))
    left, values, right = np.linalg.svd(random(*shape), full_matrices=False)
    yield np.float32((left * np.geomspace(1, 1e-4, len(values))) @ right)


# The five polynomials together are as steep as 3.4445^5 = 485 at 0, and no steeper elsewhere: what
# float32 rounds in the direction of a small singular value grows so much. The division by the norm
# and each of the five iterations round by about 2^-24 of a norm of about 1, which makes at most
# 6 * 485 * 2^-24 = 1.7e-4. That is of one update, of which 50 move a weight by some hundredths.
@pytest.mark.many_graphs
@each_shape
def test_float32_agrees_with_the_polynomials_of_the_singular_values(shape):
    for matrix in kinds(shape):
        wanted = papers.orthogonalized(matrix, EPSILON)
        assert np.linalg.norm(found(matrix) - wanted) < 1.7e-4
        assert np.linalg.norm(found(matrix, jit_compile=True) - wanted) < 1.7e-4


# Every singular value of these is far above 0: the slopes there are 10 at most.
def test_float32_agrees_more_closely_where_no_singular_value_is_small():
    for shape in ((7, 5), (18, 4), (4, 40)):
        left, values, right = np.linalg.svd(random(*shape), full_matrices=False)
        matrix = np.float32((left * np.linspace(1.0, 0.7, len(values))) @ right)
        wanted = papers.orthogonalized(matrix, EPSILON)
        assert np.linalg.norm(found(matrix) - wanted) < 6 * 10 * 2**-24


@each_shape
def test_singular_values_come_near_1_and_an_update_near_adams(shape):
    direction = found(random(*shape))
    values = np.linalg.svd(direction, compute_uv=False)
    assert values.min() > 0.68 and values.max() < 1.21
    weight = np.zeros(shape, np.float32)
    (moved,) = after("muon", [weight], [random(*shape)])
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(3 * 0.01 * 0.2, rel=0.35)


@pytest.mark.parametrize("epsilon", [EPSILON, 1.2e-38])
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e-2, 1e20, 1e37])
def test_a_direction_does_not_depend_on_the_gradients_size_until_epsilon_ends_it(scale, epsilon):
    direction = found(np.float32(random(7, 5) * scale), epsilon)
    if scale > epsilon * 1e4:
        assert direction == pytest.approx(found(random(7, 5)), rel=1e-2, abs=1e-3)
    else:
        assert np.linalg.norm(direction) < 3


@pytest.mark.parametrize("epsilon", [EPSILON, 1.2e-38])
def test_a_gradient_of_zeros_makes_an_update_of_zeros(epsilon):
    direction = found(np.zeros((7, 5), np.float32), epsilon)
    assert direction.tolist() == np.zeros((7, 5)).tolist()


def test_a_kernel_moves_as_the_matrix_of_its_patches():
    weight, gradient = random(3, 3, 2, 4), random(3, 3, 2, 4) ** 2
    (kernel,) = after("muon", [weight], [gradient])
    (matrix,) = after("muon", [weight.reshape(18, 4)], [gradient.reshape(18, 4)])
    assert same_bits([kernel.reshape(18, 4)], [matrix])


def test_vectors_move_as_under_adam_to_the_bit_and_have_its_slots():
    weights, gradients = [random(4), random(2, 3), random(6)], [random(4), random(2, 3), random(6)]
    options = {"beta_1": 0.8, "beta_2": 0.98, "epsilon": 1e-5}
    bias, _, scale = after("muon", weights, gradients, **options)
    assert same_bits(
        [bias, scale], after("adam", weights[::2], gradients[::2], momentum=0.5, **options)
    )
    optimizer = optimizers.build("muon", weight_decay=0.0)
    optimizer.create_slots([tf.Variable(weight) for weight in weights])
    shapes = sorted(tuple(slot.shape) for slot in optimizer.variables)
    assert shapes == [(2, 3), (4,), (4,), (6,), (6,)]
