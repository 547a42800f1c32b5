"""Source, task and networks of W5 to W8 as a user's file for `--load`, of Tapeline's layers.

With `benchmarks.real.specs.BUILT_IN`, the built-in networks and the built-in crop replace those of
W6 to W8, and only the tests, which need smaller ones, use `real_resnet`, `real_transformer`,
`real_vit`, their layers and `padded_crop`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import tapeline as tl
from benchmarks.real import arrays
from benchmarks.real.augmentation import cropped
from benchmarks.real.specs import SPECS
from tapeline import models


@tl.source
def real_examples(*, workload: str, examples: int = 0) -> Any:
    """The examples of a workload.

    Args:
      workload: its name, such as W5.
      examples: number of examples; 0: those of the workload.
    """
    spec = SPECS[workload]
    inputs, targets = arrays.examples_of(spec._replace(examples=examples or spec.examples))
    if spec.network == "transformer":
        return tl.arrays(inputs=inputs, targets=targets, shuffle=False)
    classes = spec.sizes["classes"]
    return tl.arrays(inputs=inputs, targets=targets, class_names=classes, shuffle=False)


@tl.task
class NextCharacter(tl.Task):
    """Cross entropy of the next character, as a mean over the characters of a sequence."""

    def __init__(self, *, vocabulary: int = 65) -> None:
        self.metrics = {"perplexity": tl.metrics.Perplexity()}
        self._vocabulary = vocabulary

    def output_spec(self, source: Any) -> tf.TensorSpec:
        """Returns the spec of the logits, float32 [characters, vocabulary]."""
        return tf.TensorSpec([*source.targets.shape, self._vocabulary])

    def __call__(self, model: Any, batch: Any, context: Any) -> tl.TaskOutput:
        """Returns the loss of each sequence, in nats a character."""
        losses = tl.cross_entropy(batch.targets, model(batch.inputs, context))
        return tl.TaskOutput(tf.reduce_mean(losses, -1), {"perplexity": (losses,)})


@tl.augment(numbers=2)
def padded_crop(inputs: Any, targets: Any, numbers: tf.Tensor) -> Any:
    """Pads images by four pixels and crops them at random."""
    return cropped(inputs, numbers), targets


@tl.model
def real_plain(outputs: tf.TensorSpec, *, width: int = 32) -> list[models.Layer]:
    """Six convolutions with batch norm, and three max pools.

    Args:
      outputs: spec of the logits.
      width: filters of the first two convolutions.
    """
    layers: list[models.Layer] = []
    for place in range(6):
        layers += [*_normed(width << place // 2), models.Activation("relu")]
        layers += [models.MaxPool()] if place % 2 else []
    return [*layers, models.Flatten(), models.Dense(outputs.shape[-1])]


@tl.model
def real_resnet(outputs: tf.TensorSpec, *, width: int = 16, blocks: int = 3) -> list[models.Layer]:
    """The residual network of He et al. 2016 for CIFAR-10, with shortcuts of option A.

    Args:
      outputs: spec of the logits.
      width: channels of the first stage.
      blocks: blocks of a stage; 3: ResNet-20.
    """
    settings = {"momentum": 0.9, "epsilon": 1e-5}
    layers = [*_normed(width, **settings), models.Activation("relu")]
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            filters = width << stage
            branch = [*_normed(filters, stride, **settings), models.Activation("relu")]
            branch += _normed(filters, **settings)
            shortcut = [models.PaddedShortcut(filters, stride)] if stride > 1 else []
            layers += [models.Residual(*branch, shortcut=shortcut), models.Activation("relu")]
    return [*layers, models.GlobalAveragePool(), models.Dense(outputs.shape[-1])]


@tl.model
def real_transformer(
    outputs: tf.TensorSpec, *, depth: int = 4, heads: int = 4, units: int = 128
) -> list[models.Layer]:
    """A causal transformer whose embedding and last layer share their weights.

    Args:
      outputs: spec of the logits.
      depth: number of blocks.
      heads: heads of an attention.
      units: size of the residual stream.
    """
    embedding = models.Embedding(outputs.shape[-1], units)
    blocks = [each for _ in range(depth) for each in _block(units, heads, True, 1e-5)]
    first = [embedding, models.PositionEmbedding()]
    return [*first, *blocks, models.LayerNorm(), TiedLogits(embedding)]


@tl.model
def real_vit(
    outputs: tf.TensorSpec, *, depth: int = 12, heads: int = 3, units: int = 192, patch: int = 4
) -> list[models.Layer]:
    """A vision transformer with a class token.

    Args:
      outputs: spec of the logits.
      depth: number of blocks.
      heads: heads of an attention.
      units: size of the residual stream.
      patch: side of a patch in pixels.
    """
    patches = [models.Convolution(units, patch, patch), models.Reshape(-1, units)]
    first = [*patches, ClassToken(), models.PositionEmbedding()]
    blocks = [each for _ in range(depth) for each in _block(units, heads, False, 1e-6)]
    return [*first, *blocks, FirstToken(), models.LayerNorm(1e-6), models.Dense(outputs.shape[-1])]


def _normed(filters: int, stride: int = 1, **settings: float) -> list[models.Layer]:
    own = {"use_bias": False, "kernel_initializer": "he_normal"}
    convolution = models.Convolution(filters, 3, stride, 1, **own)
    return [convolution, models.BatchNorm(**settings)]


def _block(units: int, heads: int, causal: bool, epsilon: float) -> list[models.Layer]:
    dense = models.Dense(4 * units, "gelu"), models.Dense(units)
    return [
        models.Residual(models.LayerNorm(epsilon), models.Attention(heads, causal=causal)),
        models.Residual(models.LayerNorm(epsilon), *dense),
    ]


class ClassToken(models.Layer):
    """A learned token before the others."""

    kind = "class token"

    def build(self, input_shape: Any, initializer: models.Initializer) -> Any:
        """Creates the token; returns the output shape, with one token more."""
        self.token = initializer.truncated_normal("token", input_shape[-1:], 0.02)
        return input_shape[0] + 1, input_shape[1]

    def __call__(self, x: tf.Tensor, context: models.ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to [rows, tokens + 1, units]."""
        shape = [tf.shape(x)[0], 1, x.shape[-1]]
        return tf.concat([tf.broadcast_to(tf.cast(self.token, context.dtype), shape), x], 1)


class FirstToken(models.Layer):
    """The first token alone."""

    kind = "first token"

    def build(self, input_shape: Any, initializer: models.Initializer) -> Any:
        """Returns the output shape; there are no variables."""
        return input_shape[1:]

    def __call__(self, x: tf.Tensor, context: models.ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to [rows, units]."""
        return x[:, 0]


class TiedLogits(models.Layer):
    """Products with the vectors of an embedding."""

    kind = "tied logits"

    def __init__(self, embedding: models.Embedding) -> None:
        super().__init__()
        self._embedding = (lambda: embedding,)  # not a submodule of this layer, too

    def build(self, input_shape: Any, initializer: models.Initializer) -> Any:
        """Returns the output shape; there are no variables of its own."""
        return *input_shape[:-1], self._embedding[0]().vocabulary

    def __call__(self, x: tf.Tensor, context: models.ForwardContext) -> tf.Tensor:
        """Maps [rows, tokens, units] to [rows, tokens, vocabulary]."""
        table = tf.cast(self._embedding[0]().table, context.dtype)
        tokens, units = x.shape[1:]
        product = tf.matmul(tf.reshape(x, [-1, units]), table, transpose_b=True)
        return tf.reshape(product, [-1, tokens, table.shape[0]])
