"""Serves Keras's `evaluate` on TensorFlow as a benchmark contender.

    python keras_evaluate.py W1 mnist.npz '{"batch": 512, "jit": false, "input": "array"}' [weights]

batch: batch size; null: Keras's default. jit: true, false or "auto", Keras's default. input:
"array", or "dataset" for tf.data. weights: .npz file with the engine's weights, so that Keras and
the engine compute the same metrics. A step is a pass over MNIST's test split; see
benchmarks/serve.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from keras_fit import model_of  # first: it says to Keras which backend

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from input_options import READY, without_autotune
from serve import serve
from workloads import SEED, WORKLOADS


def main() -> None:
    """Serves requests for evaluation passes through benchmarks/serve.py."""
    workload, variant = WORKLOADS[sys.argv[1]], json.loads(sys.argv[3])
    with np.load(sys.argv[2]) as data:
        images, labels = data["test_images"], data["test_labels"].astype(np.int32)
    keras.utils.set_random_seed(SEED)
    if workload.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = model_of(workload)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=variant["jit"],
    )
    if sys.argv[4:]:
        with np.load(sys.argv[4]) as weights:
            model.set_weights([weights[name] for name in sorted(weights.files)])
    given: dict[str, Any] = {"x": images, "y": labels, "batch_size": variant["batch"]}
    if variant["input"] == "dataset":
        batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(variant["batch"])
        given = {"x": without_autotune(batches.cache().prefetch(READY))}
    found: dict[str, float] = {}

    def take(passes: int) -> None:
        for _ in range(passes):
            found.update(model.evaluate(**given, verbose=0, return_dict=True))

    take(2)
    serve(take, {"keras": keras.__version__, "tensorflow": tf.__version__}, lambda: found)


if __name__ == "__main__":
    main()
