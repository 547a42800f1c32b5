"""Measures layers and losses beside their formulations in stock operations.

    python -m benchmarks.layers [PIECE ...] [--rounds=N]

A piece is "attention", "norm", "gelu", "mlp", "embedding" or "loss"; by default, all are measured.
The time is that of the forward pass and all gradients, in the graph and under XLA, in float32 and
bfloat16. In the graph, XLA fuses passes of the engine's layers over large tensors, as in a run
(engine/models/fused_passes.py). Blocks of both formulations are taken in turn; the ratio is the
median over the rounds of stock / engine, so above 1 the engine's is faster. The shapes are those of
nanoGPT's CPU network ("small": 12 rows of 64 tokens of 128 units) and of ViT Ti with patches of 4
on 32x32 images ("large": 64 rows of 65 tokens of 192 units).
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from engine.benchmark.blocks import interleave_blocks, median_ratio  # noqa: E402
from engine.models.base import ForwardContext, Initializer, Layer  # noqa: E402
from engine.models.layers import Activation, Attention, Dense, Embedding, LayerNorm  # noqa: E402
from engine.tasks.cross_entropy import cross_entropy  # noqa: E402

_INNER = 10  # forward and backward passes in one call of the graph
SIZES = {"small": (12, 64, 128, 4), "large": (64, 65, 192, 3)}  # rows, tokens, units, heads


class Piece(NamedTuple):
    """Two formulations of a function, and what they are called with.

    Attributes:
      name: what is measured, with its size.
      engine: the engine's formulation, a function of `x`.
      stock: the same in stock operations.
      x: the input, of the compute dtype or integers.
      variables: variables whose gradients are computed, too.
    """

    name: str
    engine: Callable[[tf.Tensor], tf.Tensor]
    stock: Callable[[tf.Tensor], tf.Tensor]
    x: tf.Tensor
    variables: Sequence[tf.Variable]


def built(layer: Layer, shape: tuple[int, ...], dtype: tf.DType) -> Callable:
    """Builds a layer and returns it as a function of its input in training, without dropout."""
    layer.build(shape, Initializer(0, 0, layer.kind.replace(" ", "_")))
    return functools.partial(layer, context=ForwardContext(training=True, dtype=dtype))


def random(shape: Sequence[int], dtype: tf.DType) -> tf.Tensor:
    """Returns random numbers of the standard normal distribution."""
    return tf.cast(tf.random.stateless_normal(shape, [1, 2]), dtype)


def attention(size: str, dtype: tf.DType) -> Piece:
    """Returns attention beside three projections and the gradient that TensorFlow derives."""
    rows, tokens, units, heads = SIZES[size]
    layer = Attention(heads, causal=size == "small")
    engine = built(layer, (tokens, units), dtype)

    def product(x: tf.Tensor, projection: Layer) -> tf.Tensor:
        x = tf.matmul(tf.reshape(x, [-1, units]), tf.cast(projection.kernel, dtype))
        return tf.nn.bias_add(x, tf.cast(projection.bias, dtype)) if projection.has_bias else x

    def stock(x: tf.Tensor) -> tf.Tensor:
        shape = [rows, tokens, heads, units // heads]
        query, key, value = (
            tf.transpose(tf.reshape(product(x, each), shape), [0, 2, 1, 3])
            for each in (layer.query, layer.key, layer.value)
        )
        query *= tf.cast(1 / math.sqrt(units // heads), dtype)
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        if layer.causal:
            scores = tf.where(np.tri(tokens, dtype=bool), scores, tf.float32.min)
        mixed = tf.matmul(tf.cast(tf.nn.softmax(scores), dtype), value)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [rows, tokens, units])
        return tf.reshape(product(mixed, layer.output), [rows, tokens, units])

    x = random([rows, tokens, units], dtype)
    return Piece(f"attention {size}", engine, stock, x, layer.trainable_variables)


def norm(size: str, dtype: tf.DType) -> Piece:
    """Returns layer norm beside moments and the gradient that TensorFlow derives."""
    rows, tokens, units, _ = SIZES[size]
    layer = LayerNorm()
    engine = built(layer, (tokens, units), dtype)

    def stock(x: tf.Tensor) -> tf.Tensor:
        x = tf.cast(x, tf.float32)
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        x = centred * tf.math.rsqrt(variance + layer.epsilon)
        return tf.cast(x * layer.scale + layer.offset, dtype)

    x = random([rows, tokens, units], dtype)
    return Piece(f"layer norm {size}", engine, stock, x, layer.trainable_variables)


def gelu(size: str, dtype: tf.DType) -> Piece:
    """Returns the GELU of a block's hidden units beside `tf.nn.gelu`."""
    rows, tokens, units, _ = SIZES[size]
    engine = built(Activation("gelu"), (tokens, 4 * units), dtype)
    return Piece(f"gelu {size}", engine, tf.nn.gelu, random([rows, tokens, 4 * units], dtype), ())


def mlp(size: str, dtype: tf.DType) -> Piece:
    """Returns the two dense layers of a block beside products, biases and `tf.nn.gelu`."""
    rows, tokens, units, _ = SIZES[size]
    layers = Dense(4 * units, "gelu"), Dense(units)
    hidden = built(layers[0], (tokens, units), dtype)
    output = built(layers[1], (tokens, 4 * units), dtype)

    def stock(x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [-1, units])
        for layer, function in zip(layers, (tf.nn.gelu, tf.identity), strict=True):
            x = tf.matmul(x, tf.cast(layer.kernel, dtype))
            x = function(tf.nn.bias_add(x, tf.cast(layer.bias, dtype)))
        return tf.reshape(x, [rows, tokens, units])

    variables = [each for layer in layers for each in layer.trainable_variables]
    x = random([rows, tokens, units], dtype)
    return Piece(f"mlp {size}", lambda x: output(hidden(x)), stock, x, variables)


def embedding(size: str, dtype: tf.DType) -> Piece:
    """Returns an embedding beside a product with one-hot vectors; 65 and 50,257 ids."""
    rows, tokens, units, _ = SIZES[size]
    vocabulary = {"small": 65, "large": 50_257}[size]
    layer = Embedding(vocabulary, units)
    engine = built(layer, (tokens,), dtype)

    def stock(ids: tf.Tensor) -> tf.Tensor:
        hot = tf.one_hot(tf.reshape(ids, [-1]), vocabulary)
        found = tf.matmul(hot, tf.convert_to_tensor(layer.table))
        return tf.cast(tf.reshape(found, [rows, tokens, units]), dtype)

    if size == "large":  # the one-hot vectors would take 800 MB

        def stock(ids: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.gather(tf.convert_to_tensor(layer.table), ids), dtype)

    ids = tf.random.stateless_uniform([rows, tokens], [1, 2], 0, vocabulary, tf.int32)
    return Piece(f"embedding of {vocabulary:,}", engine, stock, ids, layer.trainable_variables)


def loss(size: str, dtype: tf.DType) -> Piece:
    """Returns cross-entropy beside TensorFlow's function; 65 and 50,257 classes."""
    rows, classes = {"small": (768, 65), "large": (128, 50_257)}[size]
    labels = tf.random.stateless_uniform([rows], [1, 2], 0, classes, tf.int32)

    def stock(logits: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(logits, tf.float32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, wide)

    def engine(logits: tf.Tensor) -> tf.Tensor:
        return cross_entropy(labels, logits)

    return Piece(f"cross-entropy of {classes:,}", engine, stock, random([rows, classes], dtype), ())


PIECES = {
    "attention": attention,
    "norm": norm,
    "gelu": gelu,
    "mlp": mlp,
    "embedding": embedding,
    "loss": loss,
}


def timed(function: Callable, piece: Piece, compiled: bool) -> Callable[[], float]:
    """Returns a function that runs a block, and returns the seconds of a pass in it."""
    integer = piece.x.dtype.is_integer

    @tf.function(autograph=False, jit_compile=compiled)
    def passes(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def one(index: tf.Tensor, x: tf.Tensor, sums: list[tf.Tensor]) -> tuple:
            with tf.GradientTape() as tape:
                tape.watch([] if integer else x)
                y = function(x)
            sources = [*([] if integer else [x]), *piece.variables]
            found = tape.gradient(y, sources, output_gradients=y)
            found = [tf.convert_to_tensor(each) for each in found]
            if not integer:  # each pass depends on the one before
                x += found.pop(0) * tf.cast(1e-9, x.dtype)
            return index + 1, x, [a + b for a, b in zip(sums, found, strict=True)]

        zeros = [tf.zeros_like(variable) for variable in piece.variables]
        start = [tf.constant(0), x, zeros]
        return tf.while_loop(lambda i, *_: i < _INNER, one, start, parallel_iterations=1)

    def block() -> float:
        started = time.perf_counter()
        tf.nest.map_structure(lambda each: each.numpy(), passes(piece.x))
        return (time.perf_counter() - started) / _INNER

    block()
    return block


def main() -> None:
    """Prints one line for each piece, size, dtype and kind of execution."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=", ".join(PIECES))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if unknown := set(args.pieces) - set(PIECES):
        parser.error(f"no piece is named {sorted(unknown)[0]}: give some of {', '.join(PIECES)}")
    # As in a run of the engine.
    tf.config.experimental.enable_op_determinism()
    for name in args.pieces or PIECES:
        for size in SIZES:
            for dtype in (tf.float32, tf.bfloat16):
                piece = PIECES[name](size, dtype)
                for compiled in (False, True):
                    variants = {
                        "engine": timed(piece.engine, piece, compiled),
                        "stock": timed(piece.stock, piece, compiled),
                    }
                    rounds = list(interleave_blocks(variants, args.rounds))
                    engine, stock = ([r[each] for r in rounds] for each in ("engine", "stock"))
                    print(
                        f"{piece.name}, {dtype.name}, {'XLA' if compiled else 'graph'}: engine"
                        f" {np.median(engine) * 1e3:.2f} ms, stock {np.median(stock) * 1e3:.2f} ms,"
                        f" x{median_ratio(stock, engine):.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
