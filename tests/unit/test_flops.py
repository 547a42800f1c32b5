"""FLOPs counted in the graph, compared with those computed from layer sizes."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.core import flops
from engine.core.flops import flops_of_step
from engine.core.step import StepContext
from tests.laws.product import assembled

IMAGES, CLASSES = 128, 10
# Forward pass and gradient by the weights; gradient by the inputs, except for the images.
FIRST = 2 * IMAGES * 8 * 8 * (3 * 3 * 1 * 32) * 2
SECOND = 2 * IMAGES * 4 * 4 * (3 * 3 * 32 * 64) * 3
DENSE = 2 * IMAGES * (2 * 2 * 64) * CLASSES * 3


def counted(tmp_path, **options) -> float:
    parts = assembled(str(tmp_path), **{"train_split": "train[:512]", **options})
    return flops_of_step(parts.loop.graph(), parts.feeds.training.layout.local_micro_batches)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_convolutional_network(tmp_path, precision):
    assert counted(tmp_path, model="cnn", precision=precision) == FIRST + SECOND + DENSE


def test_dense_network(tmp_path):
    dense = 2 * IMAGES * (64 * 16 * 2 + 16 * CLASSES * 3)
    assert counted(tmp_path, model="mlp", hidden=(16,)) == dense


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 4},
        {"shards": 4},
        {"accumulate": 2, "shards": 2},
        {"replicas": 2},
        {"replicas": 2, "shards": 4, "accumulate": 2},
    ],
    ids=str,
)
def test_independent_of_batch_layout(tmp_path, options):
    assert counted(tmp_path, model="cnn", **options) == FIRST + SECOND + DENSE


def of_function(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    return flops._flops(graph, 1)


@pytest.mark.parametrize(
    ("equation", "shapes", "products"),
    [
        ("ij,jk->ik", ([3, 4], [4, 5]), 3 * 4 * 5),
        ("bqhd,bkhd->bhqk", ([2, 7, 3, 5], [2, 6, 3, 5]), 2 * 7 * 6 * 3 * 5),
        ("...ij,...jk->...ik", ([8, 1, 3, 4], [2, 4, 5]), 8 * 2 * 3 * 4 * 5),
        ("abc,cde->abde", ([2, 3, 4], [4, 5, 6]), 2 * 3 * 4 * 5 * 6),
    ],
)
def test_einsum(equation, shapes, products):
    counted = of_function(lambda a, b: tf.einsum(equation, a, b), *shapes)
    assert counted == 2 * products


def test_mean_product():
    """The mean is of matrix products alone, also of those in functions that the graph calls."""

    @tf.function
    def inner(x, y):
        return tf.einsum("ij,jk->ik", x, y)

    def outer(x, y, image):
        convolved = tf.nn.conv2d(image, tf.ones([2, 2, 1, 1]), 1, "SAME")
        return tf.matmul(x, y, transpose_b=True), inner(x, tf.transpose(y)), convolved

    specs = [tf.TensorSpec(shape, tf.float32) for shape in ([3, 4], [5, 4], [1, 9, 9, 1])]
    graph = tf.function(outer, autograph=False).get_concrete_function(*specs).graph
    assert flops.mean_product(graph) == 3 * 4 * 5
    none = tf.function(tf.nn.relu, autograph=False).get_concrete_function(specs[0]).graph
    assert flops.mean_product(none) == 0
    unknown = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    with pytest.raises(ValueError, match="is not known"):
        flops.mean_product(unknown.get_concrete_function(tf.TensorSpec([None, None])).graph)


def test_depthwise_convolution_and_gradient():
    def gradients(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = tf.nn.depthwise_conv2d(images, kernel, [1, 2, 2, 1], "SAME")
        return tape.gradient(outputs, [images, kernel])

    # The forward pass is not needed for the gradients of a linear function.
    one = 2 * 4 * 8 * 8 * (3 * 3 * 6 * 2)
    assert of_function(gradients, [4, 16, 16, 6], [3, 3, 6, 2]) == 2 * one


def test_convolution_in_three_dimensions():
    counted = of_function(
        lambda x, kernel: tf.nn.conv3d(x, kernel, [1, 1, 1, 1, 1], "VALID"),
        [2, 5, 6, 7, 3],
        [2, 2, 2, 3, 8],
    )
    assert counted == 2 * 2 * (4 * 5 * 6) * (2 * 2 * 2 * 3 * 8)


@pytest.mark.parametrize(
    "options", [{"model": "cnn"}, {"model": "mlp", "hidden": (256, 256)}], ids=str
)
def test_profiler_of_tensorflow_counts_the_same(tmp_path, options):
    """TensorFlow's profiler counts operations on single elements, too: up to 5% more.

    It also counts the gradient by the images, which is in the graph and not executed, and it counts
    gradients of a convolution without padding at the size of the input.
    """
    parts = assembled(str(tmp_path), jit="off", global_batch_size=256, **options)
    loop, feed = parts.loop, parts.feeds.training

    def step(number):
        context = StepContext(number, number, tf.constant(1.0))
        batch = feed.batch(feed.next(feed.open(0, 1).given), number, 0, 0)
        total = loop.step.compute_gradients(batch, context)
        return loop.step.apply_gradients(total, context)

    traced = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    given = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    given["output"] = "none"
    profiled = tf.compat.v1.profiler.profile(traced.graph, options=given, cmd="op").total_float_ops
    counted = flops_of_step(loop.graph(retrace=True), 1)
    unused = 2 * 256 * 8 * 8 * (3 * 3 * 1 * 32) if options["model"] == "cnn" else 0
    assert 0.95 <= counted / (profiled - unused) <= 1
