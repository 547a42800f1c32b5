"""The networks of W5 to W8 as functions of their weights, for the loop by hand.

A network takes the weights of `benchmarks.real.arrays.initial` by name, and the inputs of a batch;
it returns the logits, float32 [rows, classes], and, by the name of each batch norm, the mean and
the biased variance of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from benchmarks.real import kernels
from benchmarks.real.specs import Spec
from engine.models.fused_passes import fused

Weights = Mapping[str, tf.Tensor]
Statistics = dict[str, tuple[tf.Tensor, tf.Tensor]]
Network = Callable[[Spec, Weights, tf.Tensor, tf.DType], tuple[tf.Tensor, Statistics]]


def plain(
    spec: Spec, weights: Weights, images: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, Statistics]:
    """Applies W5's network; the ReLU is behind the pool, of which it changes no value."""
    x, statistics = tf.cast(tf.cast(images, tf.float32) / 255, dtype), Statistics()
    for place in range(6):
        x = _normed(spec, weights, f"{place}", x, 1, statistics)
        if place % 2:
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.nn.relu(x)
    x = tf.reshape(x, [x.shape[0], -1])
    return tf.cast(_dense(weights, "head", x), tf.float32), statistics


def resnet(
    spec: Spec, weights: Weights, images: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, Statistics]:
    """Applies the residual network of He et al. 2016, section 4.2, with shortcuts of option A."""
    x, statistics = tf.cast(tf.cast(images, tf.float32) / 255, dtype), Statistics()
    x = tf.nn.relu(_normed(spec, weights, "stem", x, 1, statistics))
    for stage in range(3):
        for block in range(spec.sizes["blocks"]):
            stride = 2 if stage and not block else 1
            y = _normed(spec, weights, f"{stage}.{block}.0", x, stride, statistics)
            y = _normed(spec, weights, f"{stage}.{block}.1", tf.nn.relu(y), 1, statistics)
            if stride > 1:  # every second pixel; a slice and its gradient run on one core
                taken = tf.nn.avg_pool2d(x, 1, 2, "VALID")
                x = tf.pad(taken, [[0, 0], [0, 0], [0, 0], [0, x.shape[-1]]])
            x = tf.nn.relu(x + y)
    x = tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]), dtype)
    return tf.cast(_dense(weights, "head", x), tf.float32), statistics


def transformer(
    spec: Spec, weights: Weights, ids: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, Statistics]:
    """Applies W7's network to ids [rows, tokens]; the logits are [rows * tokens, vocabulary]."""
    tokens = ids.shape[1]
    x = kernels.embedded(weights["tokens/table"], tf.reshape(tf.cast(ids, tf.int32), [-1]))
    x = tf.cast(x, dtype)
    units = x.shape[1]
    positions = tf.cast(weights["positions/table"], dtype)
    x = tf.reshape(tf.reshape(x, [-1, tokens, units]) + positions, [-1, units])
    x = _blocks(spec, weights, x, tokens, causal=True)
    table = tf.cast(weights["tokens/table"], dtype)
    return tf.cast(tf.matmul(x, table, transpose_b=True), tf.float32), {}


def vit(
    spec: Spec, weights: Weights, images: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, Statistics]:
    """Applies W8's network; the patches are multiplied as a matrix."""
    rows, side, _, channels = images.shape
    patch, units = spec.sizes["patch"], spec.sizes["units"]
    many = side // patch
    x = tf.reshape(images, [rows, many, patch, many, patch, channels])
    x = tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [rows * many**2, patch**2 * channels])
    kernel = tf.reshape(tf.cast(weights["patches/kernel"], dtype), [-1, units])
    x = tf.matmul(tf.cast(tf.cast(x, tf.float32) / 255, dtype), kernel)
    x = tf.nn.bias_add(x, tf.cast(weights["patches/bias"], dtype))
    token = tf.broadcast_to(tf.cast(weights["class/token"], dtype), [rows, 1, units])
    x = tf.concat([token, tf.reshape(x, [rows, many**2, units])], 1)
    x = tf.reshape(x + tf.cast(weights["positions/table"], dtype), [-1, units])
    tokens = many**2 + 1
    x = _blocks(spec, weights, x, tokens, causal=False, only=0)
    return tf.cast(_dense(weights, "head", x), tf.float32), {}


NETWORKS: dict[str, Network] = {
    "plain": plain,
    "resnet": resnet,
    "transformer": transformer,
    "vit": vit,
}


def _blocks(
    spec: Spec, weights: Weights, x: tf.Tensor, tokens: int, causal: bool, only: int | None = None
) -> tf.Tensor:
    """Applies the blocks and the last norm to [rows * tokens, units].

    With `only`, the last block computes keys and values of all tokens, and the rest of one; and XLA
    fuses the passes of norms and GELUs, which the executor else computes one by one.

    Args:
      spec: the workload.
      weights: weights by name.
      x: [rows * tokens, units].
      tokens: tokens of a row.
      causal: whether a token sees only itself and earlier ones.
      only: the token that is returned, [rows, units]; None: all.
    """
    dtype, apart = x.dtype, only is not None
    for block in range(spec.sizes["depth"]):
        y = _layer_norm(spec, weights, f"{block}/norm_1", x, apart)
        query, value = (weights[f"{block}/attention/{name}_bias"] for name in ("query", "value"))
        bias = tf.cast(tf.concat([query, tf.zeros_like(query), value], 0), dtype)
        kernel = tf.cast(weights[f"{block}/attention/kernel"], dtype)
        if only is not None and block == spec.sizes["depth"] - 1:
            units, heads = x.shape[1], spec.sizes["heads"]
            x, query = (tf.reshape(each, [-1, tokens, units])[:, only] for each in (x, y))
            query = tf.nn.bias_add(tf.matmul(query, kernel[:, :units]), bias[:units])
            y = tf.nn.bias_add(tf.matmul(y, kernel[:, units:]), bias[units:])
            y = kernels.attention_of_one(query, y, tokens, heads)
        else:
            y = tf.nn.bias_add(tf.matmul(y, kernel), bias)
            y = kernels.attention(y, tokens, spec.sizes["heads"], causal, apart=causal)
        x += _dense(weights, f"{block}/output", y)
        y = _layer_norm(spec, weights, f"{block}/norm_2", x, apart)
        name = f"{block}/expand"
        if apart:
            y = tf.matmul(y, tf.cast(weights[f"{name}/kernel"], dtype))
            y = fused(kernels.biased_gelu, y, weights[f"{name}/bias"])
        else:
            y = kernels.gelu(_dense(weights, name, y))
        x += _dense(weights, f"{block}/contract", y)
    return _layer_norm(spec, weights, "norm", x)


def _layer_norm(
    spec: Spec, weights: Weights, name: str, x: tf.Tensor, apart: bool = False
) -> tf.Tensor:
    scale, offset = weights[f"{name}/scale"], weights[f"{name}/offset"]
    if apart:
        return fused(kernels.layer_norm, x, scale, offset, epsilon=spec.epsilon)
    return kernels.layer_norm(x, scale, offset, spec.epsilon)


def _dense(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    return tf.nn.bias_add(tf.matmul(x, tf.cast(kernel, x.dtype)), tf.cast(bias, x.dtype))


def _normed(
    spec: Spec, weights: Weights, name: str, x: tf.Tensor, stride: int, statistics: Statistics
) -> tf.Tensor:
    kernel = tf.cast(weights[f"{name}/kernel"], x.dtype)
    if stride == 1:
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
    else:
        # By a row and a column on each side, of which an even side does not read the last. "SAME"
        # would pad at the end; other paddings have no fast kernel for the gradients, and in
        # bfloat16 none at all.
        border = [1, x.shape[1] % 2]
        x = tf.pad(x, [[0, 0], border, border, [0, 0]])
        x = tf.nn.conv2d(x, kernel, stride, "VALID")
    scale, offset = weights[f"{name}/scale"], weights[f"{name}/offset"]
    batch_norm = kernels.fused_batch_norm if spec.fused else kernels.batch_norm
    x, *statistics[name] = batch_norm(x, scale, offset, spec.epsilon)
    return x
