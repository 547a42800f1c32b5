"""Sources, task and networks of the GPU benchmark, as a user's file for `--load`.

The loop by hand and Keras's `fit` train the same networks on the same examples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

import tapeline as tl

_STDDEV = 0.02  # of initial weights (Radford et al. 2019)


def picture_arrays(
    side: int, channels: int, classes: int, examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8 [examples, side, side, channels], and int32 labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, [examples, side, side, channels], np.uint8)
    return images, random.integers(0, classes, examples, np.int32)


def token_arrays(context: int, vocabulary: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random token ids and the ids after them, both int32 [examples, context]."""
    ids = np.random.default_rng(0).integers(0, vocabulary, [examples, context + 1], np.int32)
    return ids[:, :-1], ids[:, 1:]


@tl.source
def random_pictures(
    *, side: int = 28, channels: int = 1, classes: int = 10, examples: int = 1024
) -> Any:
    """Random images with random labels, which show the speed and teach nothing.

    Args:
      side: rows and columns of an image.
      channels: channels of an image.
      classes: number of classes.
      examples: number of images.
    """
    images, labels = picture_arrays(side, channels, classes, examples)
    return tl.arrays(inputs=images, targets=labels, class_names=classes)


@tl.source
def random_tokens(*, context: int = 1024, vocabulary: int = 50_304, examples: int = 64) -> Any:
    """Random sequences of token ids.

    Args:
      context: tokens of a sequence.
      vocabulary: number of ids.
      examples: number of sequences.
    """
    inputs, targets = token_arrays(context, vocabulary, examples)
    return tl.arrays(inputs=inputs, targets=targets)


@tl.task
class NextToken(tl.Task):
    """Cross entropy of the next token, as a mean over the tokens of a sequence.

    Args:
      vocabulary: number of logits.
    """

    def __init__(self, *, vocabulary: int = 50_304) -> None:
        self.metrics = {"perplexity": tl.metrics.Perplexity()}
        self._vocabulary = vocabulary

    def output_spec(self, source: Any) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [tokens, vocabulary]."""
        return tf.TensorSpec([*source.targets.shape, self._vocabulary])

    def __call__(self, model: Any, batch: Any, context: Any) -> tl.TaskOutput:
        """Returns the loss of each sequence, in nats a token."""
        losses = token_losses(model(batch.inputs, context), batch.targets)
        return tl.TaskOutput(tf.reduce_mean(losses, -1), {"perplexity": (losses,)})


def token_losses(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the cross entropies of ids, float32 [rows, tokens], in nats."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(targets, tf.int32), tf.cast(logits, tf.float32)
    )


def keras_residual(shape: tuple[int, ...], classes: int, network: str) -> Any:
    """Returns a new residual network of Keras, which gives logits.

    Args:
      shape: shape of an image.
      classes: number of logits.
      network: name of a model of `keras.applications`, such as ResNet50, or "tiny": one block.
    """
    import keras

    if network != "tiny":
        build = getattr(keras.applications, network)
        return build(input_shape=shape, classes=classes, weights=None, classifier_activation=None)
    layers = keras.layers
    images = keras.Input(shape)
    x = layers.Conv2D(8, 7, strides=2, padding="same")(images)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = before = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for filters in (8, 8):
        x = layers.Conv2D(filters, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([before, x]))
    return keras.Model(images, layers.Dense(classes)(x))


@tl.model
def residual_network(
    inputs: tf.TensorSpec, outputs: tf.TensorSpec, *, network: str = "ResNet50"
) -> Any:
    """A residual network of Keras.

    Args:
      inputs: spec of an image.
      outputs: spec of the logits.
      network: as for `keras_residual`.
    """
    return tl.keras(keras_residual(tuple(inputs.shape), outputs.shape[-1], network))


class GPT2(tf.Module):
    """GPT-2 (Radford et al. 2019) without dropout, written by hand.

    The embedding and the last layer share their weights. Attention and the loss are written as
    plain products and a softmax.

    Args:
      context: tokens of a sequence.
      vocabulary: number of ids.
      depth: number of blocks.
      units: size of the residual stream.
      heads: heads of an attention, which divide `units`.
    """

    def __init__(self, context: int, vocabulary: int, depth: int, units: int, heads: int) -> None:
        super().__init__("gpt2")
        random, self._heads = np.random.default_rng(0), heads

        def weights(*shape: int, scale: float = 1.0) -> tf.Variable:
            return tf.Variable(random.standard_normal(shape, np.float32) * _STDDEV * scale)

        def norm() -> list[tf.Variable]:
            return [tf.Variable(tf.ones([units])), tf.Variable(tf.zeros([units]))]

        def dense(rows: int, columns: int, scale: float = 1.0) -> list[tf.Variable]:
            return [weights(rows, columns, scale=scale), tf.Variable(tf.zeros([columns]))]

        self.tokens, self.positions = weights(vocabulary, units), weights(context, units)
        into = 1 / math.sqrt(2 * depth)  # of layers that add to the residual stream
        self.blocks = [
            {
                "norm_1": norm(),
                "attention": dense(units, 3 * units),
                "projection": dense(units, units, into),
                "norm_2": norm(),
                "expand": dense(units, 4 * units),
                "contract": dense(4 * units, units, into),
            }
            for _ in range(depth)
        ]
        self.norm = norm()

    def __call__(self, ids: tf.Tensor, context: Any) -> tf.Tensor:
        """Returns the logits, [rows, tokens, vocabulary] in `context.dtype`, of ids [rows, tokens].

        The products are computed in `context.dtype`; norms and the softmax in float32.
        """
        dtype = context.dtype
        x = tf.cast(tf.gather(self.tokens, tf.cast(ids, tf.int32)) + self.positions, dtype)
        for block in self.blocks:
            x += self._attention(_normalized(x, *block["norm_1"]), block)
            expanded = _dense(_normalized(x, *block["norm_2"]), *block["expand"])
            x += _dense(tf.nn.gelu(expanded, approximate=True), *block["contract"])
        x = _normalized(x, *self.norm)
        return tf.matmul(x, tf.cast(self.tokens, dtype), transpose_b=True)

    def _attention(self, x: tf.Tensor, block: dict[str, list[tf.Variable]]) -> tf.Tensor:
        tokens, units = x.shape[1:]
        together = _dense(x, *block["attention"])
        shape = [-1, tokens, 3, self._heads, units // self._heads]
        query, key, value = tf.unstack(tf.transpose(tf.reshape(together, shape), [2, 0, 3, 1, 4]))
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        scores *= 1 / math.sqrt(units // self._heads)
        scores = tf.where(np.tri(tokens, dtype=bool), scores, tf.float32.min)
        mixed = tf.matmul(tf.cast(tf.nn.softmax(scores), x.dtype), value)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, tokens, units])
        return _dense(mixed, *block["projection"])


def _dense(x: tf.Tensor, kernel: tf.Variable, bias: tf.Variable) -> tf.Tensor:
    """Returns `x @ kernel + bias` in the dtype of `x`, [rows, tokens, columns]."""
    tokens, units = x.shape[1:]
    product = tf.matmul(tf.reshape(x, [-1, units]), tf.cast(kernel, x.dtype))
    return tf.reshape(product + tf.cast(bias, x.dtype), [-1, tokens, kernel.shape[1]])


def _normalized(x: tf.Tensor, gain: tf.Variable, bias: tf.Variable) -> tf.Tensor:
    """Returns the layer norm of `x` (Ba et al. 2016), computed in float32, in the dtype of `x`."""
    wide = tf.cast(x, tf.float32)
    mean, variance = tf.nn.moments(wide, [-1], keepdims=True)
    return tf.cast((wide - mean) * tf.math.rsqrt(variance + 1e-5) * gain + bias, x.dtype)


@tl.model
def gpt2(
    inputs: tf.TensorSpec,
    *,
    vocabulary: int = 50_304,
    depth: int = 12,
    units: int = 768,
    heads: int = 12,
) -> Any:
    """GPT-2; the default sizes are those of GPT-2 small, 124 million parameters.

    Args:
      inputs: spec of the ids of a sequence.
      vocabulary: number of ids; GPT-2's 50,257, rounded up to a multiple of 64.
      depth: number of blocks.
      units: size of the residual stream.
      heads: heads of an attention.
    """
    return tl.module(GPT2(inputs.shape[0], vocabulary, depth, units, heads))
