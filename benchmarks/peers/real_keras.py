"""Serves W5 to W8 with Keras's `fit` on TensorFlow as a benchmark contender.

    python real_keras.py W6 float32 '{"steps_per_execution": 8, "jit": false, "input": "dataset"}'

steps_per_execution: argument of `compile`. jit: true, false or "auto", Keras's default. input:
"array", or "dataset" for tf.data; augmentation is always in tf.data, in whole batches. With a
fourth argument, prints the number of parameters and the losses of that many steps; see
benchmarks/real/check.py.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.input_options import PARALLEL, READY, without_autotune
from benchmarks.real import arrays
from benchmarks.real.augmentation import cropped
from benchmarks.real.serving import checked, final_of
from benchmarks.real.specs import SEED, SPECS, Spec
from benchmarks.serve import serve

layers = keras.layers


class Vectors(layers.Layer):
    """Layer that adds a learned table to a sequence, after a class token if there is one.

    Args:
      token: whether a learned token comes first.
    """

    def __init__(self, token: bool) -> None:
        super().__init__()
        self._with_token = token

    def build(self, shape: tuple) -> None:
        """Creates the token and the table."""
        if self._with_token:
            self.token = self.add_weight(shape=shape[2:], name="token")
        self.table = self.add_weight(shape=(shape[1] + self._with_token, shape[2]), name="table")

    def call(self, x: Any) -> Any:
        """Returns the sequence plus the table."""
        if self._with_token:
            token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[2]))
            x = keras.ops.concatenate([keras.ops.cast(token, x.dtype), x], 1)
        return x + self.table


def model_of(spec: Spec) -> keras.Model:
    """Returns the workload's network of Keras layers, with the weights of `arrays.initial`."""
    if spec.network == "transformer":
        ids = keras.Input((spec.sizes["context"],), dtype="int32")
        embedding = layers.ReversibleEmbedding(spec.sizes["vocabulary"], spec.sizes["units"])
        x = _blocks(spec, Vectors(False)(embedding(ids)), True)
        model = keras.Model(
            ids, layers.Activation("linear", dtype="float32")(embedding(x, reverse=True))
        )
    else:
        images = keras.Input(spec.image)
        x = layers.Rescaling(1 / 255)(images)
        x = {"plain": _plain, "resnet": _resnet, "vit": _vit}[spec.network](spec, x)
        x = layers.Dense(spec.sizes["classes"])(x)
        model = keras.Model(images, layers.Activation("linear", dtype="float32")(x))
    _assign(spec, model)
    return model


def _normed(spec: Spec, x: Any, filters: int, stride: int = 1) -> Any:
    if stride > 1:  # on both sides, where "same" would pad at the end only
        x = layers.ZeroPadding2D(1)(x)
    padding = "valid" if stride > 1 else "same"
    x = layers.Conv2D(filters, 3, stride, padding=padding, use_bias=False)(x)
    return layers.BatchNormalization(momentum=spec.momentum, epsilon=spec.epsilon)(x)


def _plain(spec: Spec, x: Any) -> Any:
    for place in range(6):
        x = layers.ReLU()(_normed(spec, x, spec.sizes["width"] << place // 2))
        if place % 2:
            x = layers.MaxPooling2D()(x)
    return layers.Flatten()(x)


def _resnet(spec: Spec, x: Any) -> Any:
    x = layers.ReLU()(_normed(spec, x, spec.sizes["width"]))
    for stage in range(3):
        for block in range(spec.sizes["blocks"]):
            stride = 2 if stage and not block else 1
            filters = spec.sizes["width"] << stage
            y = _normed(spec, layers.ReLU()(_normed(spec, x, filters, stride)), filters)
            if stride == 2:
                more = filters // 2
                x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, more)))
            x = layers.ReLU()(layers.Add()([x, y]))
    return layers.GlobalAveragePooling2D()(x)


def _vit(spec: Spec, x: Any) -> Any:
    units, patch = spec.sizes["units"], spec.sizes["patch"]
    x = layers.Conv2D(units, patch, patch)(x)
    x = Vectors(True)(layers.Reshape((-1, units))(x))
    return _blocks(spec, x, False)[:, 0]


def _blocks(spec: Spec, x: Any, causal: bool) -> Any:
    units, heads = spec.sizes["units"], spec.sizes["heads"]
    for _ in range(spec.sizes["depth"]):
        y = layers.LayerNormalization(epsilon=spec.epsilon)(x)
        attention = layers.MultiHeadAttention(heads, units // heads)
        x = layers.Add()([x, attention(y, y, use_causal_mask=causal)])
        y = layers.LayerNormalization(epsilon=spec.epsilon)(x)
        y = layers.Dense(4 * units, activation=lambda x: keras.ops.gelu(x, approximate=False))(y)
        x = layers.Add()([x, layers.Dense(units)(y)])
    return layers.LayerNormalization(epsilon=spec.epsilon)(x)


def _assign(spec: Spec, model: keras.Model) -> None:
    """Assigns the initial weights; those of an attention are split into query, key and value."""
    values = iter(arrays.initial(spec).values())
    waiting = [layer for layer in model.layers if layer.trainable_variables]
    for layer in waiting:
        if isinstance(layer, layers.MultiHeadAttention):
            kernels = np.split(next(values), 3, -1)
            query, value = next(values), next(values)
            shape = layer.query_dense.kernel.shape
            inner = layer.query_dense, layer.key_dense, layer.value_dense
            biases = query, np.zeros_like(query), value
            for dense, kernel, bias in zip(inner, kernels, biases, strict=True):
                dense.set_weights([kernel.reshape(shape), bias.reshape(shape[1:])])
            output = layer.output_dense
            output.set_weights([next(values).reshape(output.kernel.shape), next(values)])
        else:
            for variable in layer.trainable_variables:
                variable.assign(next(values))
    assert next(values, None) is None


def optimizer_of(spec: Spec, model: keras.Model) -> keras.optimizers.Optimizer:
    """Returns Keras's optimizer of a workload; the decay is not of vectors."""
    settings = spec.settings
    clip = {"global_clipnorm": settings["clip"]} if "clip" in settings else {}
    decay = {"weight_decay": settings["decay"]} if "decay" in settings else {}
    if spec.optimizer == "momentum":
        made = keras.optimizers.SGD(settings["rate"], settings["momentum"], **clip, **decay)
    else:
        own = {"beta_2": settings["beta_2"], "epsilon": settings["epsilon"], **clip, **decay}
        kind = keras.optimizers.Adam if spec.optimizer == "adam" else keras.optimizers.AdamW
        made = kind(settings["rate"], **own)
    if decay:
        kept = [v for v in model.trainable_variables if len(v.shape) < 2 or v.path.endswith("bias")]
        made.exclude_from_weight_decay(var_list=kept)
    return made


def dataset_of(spec: Spec, inputs: np.ndarray, targets: np.ndarray) -> tf.data.Dataset:
    """Returns the batches of an epoch, shuffled and augmented."""
    inputs, targets = tf.constant(inputs), tf.constant(targets)

    def batch_of(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.gather(inputs, rows)
        if spec.augment:
            numbers = tf.random.uniform([spec.batch, 3])
            images = cropped(images, numbers[:, :2], numbers[:, 2:] >= 0.5)
        return images, tf.gather(targets, rows)

    # Numbers are shuffled, and not examples, and batches are gathered at once.
    found = tf.data.Dataset.range(spec.examples).shuffle(spec.examples)
    found = found.batch(spec.batch, drop_remainder=True)
    found = found.map(batch_of, num_parallel_calls=PARALLEL)
    return without_autotune(found.prefetch(READY))


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    spec, precision, variant = SPECS[sys.argv[1]], sys.argv[2], json.loads(sys.argv[3])
    checks = int(sys.argv[4]) if sys.argv[4:] else 0
    inputs, targets = arrays.examples_of(spec)
    keras.utils.set_random_seed(SEED)
    if precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = model_of(spec)
    model.compile(
        optimizer_of(spec, model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=variant["steps_per_execution"],
        jit_compile=variant["jit"],
    )
    losses, at = [float("nan")], 0
    per_epoch = spec.examples // spec.batch
    whole = dataset_of(spec, inputs, targets)

    def fit(steps: int, epochs: int) -> None:
        nonlocal at
        if checks:
            rows = slice(at * spec.batch, (at + steps) * spec.batch)
            at += steps
            own = {"x": inputs[rows], "y": targets[rows], "shuffle": False}
            found = model.fit(**own, batch_size=spec.batch, verbose=0)
        elif spec.augment or variant["input"] == "dataset":
            some = whole if steps == per_epoch else whole.take(steps)
            found = model.fit(some, epochs=epochs, verbose=0)
        else:
            rows = slice(steps * spec.batch)
            own = {"batch_size": spec.batch, "epochs": epochs, "verbose": 0}
            found = model.fit(inputs[rows], targets[rows], **own)
        losses[0] = float(found.history["loss"][-1])

    def take(steps: int) -> int:
        at_once = 1 if checks else variant["steps_per_execution"]
        steps = -(-steps // at_once) * at_once
        epochs, rest = divmod(steps, per_epoch)
        if epochs:
            fit(per_epoch, epochs)
        if rest:
            fit(rest, 1)
        return steps

    if checks:
        parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        checked(take, lambda: losses[0], checks, parameters)
        return
    take(max(2, variant["steps_per_execution"]))
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    serve(take, versions, lambda: final_of(losses[0]))


if __name__ == "__main__":
    main()
