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

from keras_fit import model_of  # first: it says to Keras which backend

import keras  # isort: skip
import numpy as np
from keras_passes import serve_passes
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
    if sys.argv[4:]:
        with np.load(sys.argv[4]) as weights:
            model.set_weights([weights[name] for name in sorted(weights.files)])
    serve_passes(model, images, labels, variant)


if __name__ == "__main__":
    main()
