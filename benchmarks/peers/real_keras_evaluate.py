"""Serves Keras's `evaluate` of the networks of W5 to W8 as a benchmark contender.

    python real_keras_evaluate.py W6 4096 '{"batch": 512, "jit": false, "input": "array"}'

batch: batch size; null: Keras's default. jit: true, false or "auto", Keras's default. input:
"array", or "dataset" for tf.data. A step is a pass over that many examples, those of
benchmarks/real/engine_evaluation.py, with the same weights; see benchmarks/serve.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.peers.real_keras import model_of  # first: it says to Keras which backend

import keras  # isort: skip
import tensorflow as tf

from benchmarks.real import arrays
from benchmarks.real.specs import SPECS
from benchmarks.serve import serve


def main() -> None:
    """Serves requests for evaluation passes through benchmarks/serve.py."""
    spec, examples, variant = SPECS[sys.argv[1]], int(sys.argv[2]), json.loads(sys.argv[3])
    inputs, targets = arrays.examples_of(spec._replace(examples=spec.batch + examples))
    inputs, targets = inputs[spec.batch :], targets[spec.batch :]
    model = model_of(spec)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=variant["jit"],
    )
    given: dict[str, Any] = {"x": inputs, "y": targets, "batch_size": variant["batch"]}
    if variant["input"] == "dataset":
        batches = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(variant["batch"])
        given = {"x": batches.cache().prefetch(tf.data.AUTOTUNE)}
    found: dict[str, float] = {}

    def take(passes: int) -> None:
        for _ in range(passes):
            found.update(model.evaluate(**given, verbose=0, return_dict=True))

    take(2)
    serve(take, {"keras": keras.__version__, "tensorflow": tf.__version__}, lambda: found)


if __name__ == "__main__":
    main()
