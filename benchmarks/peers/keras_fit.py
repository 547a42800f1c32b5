"""Serves training with Keras's `fit` on TensorFlow as a benchmark contender.

    python keras_fit.py W1 mnist.npz '{"steps_per_execution": 32, "jit": "auto", "input": "array"}'

steps_per_execution: argument of `compile`. jit: true, false or "auto", Keras's default. input:
"array", or "dataset" for tf.data. Keras reads arrays through an autotuned pipeline, whose end can
wait for the tuning thread (benchmarks/input_options.py); the dataset has none. Each call of `fit`
begins an epoch. Therefore a block has at least the steps of an epoch; see `at_least` in
benchmarks/serve.py.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from input_options import READY, without_autotune
from serve import serve
from workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload


def model_of(workload: Workload) -> keras.Model:
    """Returns the workload's network, built from Keras layers."""
    layers = keras.layers
    images = keras.Input((28, 28, 1))
    x = layers.Rescaling(1 / 255)(images)
    if workload.network == "convolutional":
        for filters in (32, 64):
            x = layers.Conv2D(filters, 3, activation="relu")(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Dropout(0.5)(layers.Flatten()(x))
    else:
        x = layers.Flatten()(x)
        for units in workload.hidden:
            x = layers.Dense(units, activation="relu")(x)
    return keras.Model(images, layers.Dense(10, dtype="float32")(x))


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload, variant = WORKLOADS[sys.argv[1]], json.loads(sys.argv[3])
    with np.load(sys.argv[2]) as data:
        count = EXAMPLES[workload.batch]
        images, labels = data["images"][:count], data["labels"][:count].astype(np.int32)
    keras.utils.set_random_seed(SEED)
    if workload.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = model_of(workload)
    model.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=variant["steps_per_execution"],
        jit_compile=variant["jit"],
    )
    batch = workload.batch

    per_epoch = count // batch

    def fit(steps: int, epochs: int) -> None:
        if variant["input"] == "dataset":
            some = dataset if steps == per_epoch else dataset.take(steps)
            model.fit(some, epochs=epochs, verbose=0)
        else:
            rows = slice(steps * batch)
            model.fit(images[rows], labels[rows], batch_size=batch, epochs=epochs, verbose=0)

    def take(steps: int) -> None:
        epochs, rest = divmod(steps, per_epoch)
        if epochs:
            fit(per_epoch, epochs)
        if rest:
            fit(rest, 1)

    dataset = without_autotune(
        tf.data.Dataset.from_tensor_slices((images, labels))
        .cache()
        .shuffle(10_000)
        .batch(batch, drop_remainder=True)
        .prefetch(READY)
    )
    take(max(2, variant["steps_per_execution"]))

    def final() -> list[float]:
        return [float(value) for value in model.evaluate(images, labels, 1000, verbose=0)]

    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    serve(take, {"at_least": per_epoch, **versions}, final)


if __name__ == "__main__":
    main()
