"""Measures training steps of Keras's `fit` with `jit_compile=True` on a GPU.

    python -m benchmarks.gpu.keras_steps resnet50 [--rehearse]

`fit` gets batches from tf.data: of all examples for W1, and otherwise the same batch again and
again, which is copied to the GPU in each step. A block is one call of `fit`; with
`steps_per_execution`, Keras takes several steps in a call of the graph.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

from benchmarks.gpu import networks, timing
from benchmarks.gpu.workloads import GpuWorkload
from benchmarks.workloads import RATE

_STEPS_PER_EXECUTION = 8
_LONGER = 2.0  # times as long as the blocks of others, because each is a call of `fit`


def convolutional(workload: GpuWorkload) -> keras.Model:
    """Returns the network of W1, of Keras layers."""
    layers, side = keras.layers, workload.data["side"]
    x = images = keras.Input((side, side, workload.data["channels"]))
    x = layers.Rescaling(1 / 255)(x)
    for filters in (32, 64):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(workload.data["classes"], dtype="float32")(x))


def residual(workload: GpuWorkload) -> keras.Model:
    """Returns the residual network, which scales uint8 images."""
    data = workload.data
    shape = data["side"], data["side"], data["channels"]
    images = keras.Input(shape)
    model = networks.keras_residual(shape, data["classes"], workload.arguments["network"])
    logits = model(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Activation("linear", dtype="float32")(logits))


@keras.saving.register_keras_serializable()
class Positions(keras.layers.Layer):
    """Layer that adds a learned vector to each position of a sequence."""

    def build(self, shape: tuple) -> None:
        """Creates the table, [tokens, units]."""
        self.table = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, x: Any) -> Any:
        """Returns `x` plus the table."""
        return x + self.table


def transformer(workload: GpuWorkload) -> keras.Model:
    """Returns GPT-2 of Keras layers, with shared weights of embedding and last layer."""
    layers, sizes = keras.layers, workload.arguments
    units, heads = sizes["units"], sizes["heads"]
    embedding = layers.ReversibleEmbedding(sizes["vocabulary"], units)
    ids = keras.Input((workload.data["context"],), dtype="int32")
    x = Positions()(embedding(ids))
    for _ in range(sizes["depth"]):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        attention = layers.MultiHeadAttention(heads, units // heads)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        y = layers.Dense(4 * units, activation=keras.ops.gelu)(y)
        x = layers.Add()([x, layers.Dense(units)(y)])
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    logits = embedding(x, reverse=True)
    return keras.Model(ids, layers.Activation("linear", dtype="float32")(logits))


MODELS = {"convolutional": convolutional, "residual": residual, "transformer": transformer}


def dataset_of(workload: GpuWorkload) -> tf.data.Dataset:
    """Returns the endless batches of a workload, of inputs and targets."""
    make = networks.token_arrays if workload.kind == "transformer" else networks.picture_arrays
    count = workload.batch if workload.synthetic else workload.data["examples"]
    examples = make(**{**workload.data, "examples": count})
    if workload.synthetic:
        return tf.data.Dataset.from_tensors(examples).repeat().prefetch(tf.data.AUTOTUNE)
    dataset = tf.data.Dataset.from_tensor_slices(examples).cache().shuffle(10_000).repeat()
    return dataset.batch(workload.batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Measures the steps of a workload, and prints lines of JSON."""
    args = timing.parser("keras_steps", __doc__).parse_args()
    workload, length = timing.workload_of(args)
    timing.grow_memory(tf)
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(workload.precision)
    model = MODELS[workload.kind](workload)
    model.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=_STEPS_PER_EXECUTION,
        jit_compile=True,
    )
    dataset = dataset_of(workload)
    figures: dict[str, Any] = timing.described(tf, workload, "Keras fit", "step")
    figures["versions"]["keras"] = keras.__version__
    figures["steps_per_execution"] = _STEPS_PER_EXECUTION

    def take(steps: int) -> None:
        model.fit(dataset, steps_per_epoch=steps, verbose=0)
        timing.synchronize(tf)

    longer = length._replace(seconds=_LONGER * length.seconds)
    timing.measure(take, figures, longer, at_least=_STEPS_PER_EXECUTION)


if __name__ == "__main__":
    sys.exit(main())
