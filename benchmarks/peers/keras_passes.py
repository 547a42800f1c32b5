"""Serves passes of Keras's `evaluate`; see benchmarks/serve.py."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.input_options import READY, without_autotune
from benchmarks.serve import serve


def serve_passes(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, variant: dict[str, Any]
) -> None:
    """Compiles a classifier with a loss and the accuracy, and serves passes over the examples.

    Args:
      model: the model, which returns logits.
      inputs: inputs of the examples.
      targets: their labels.
      variant: "batch" (size; None: Keras's default), "jit" (argument of `compile`) and "input"
        ("array", or "dataset" for tf.data).
    """
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=variant["jit"],
    )
    given: dict[str, Any] = {"x": inputs, "y": targets, "batch_size": variant["batch"]}
    if variant["input"] == "dataset":
        batches = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(variant["batch"])
        given = {"x": without_autotune(batches.cache().prefetch(READY))}
    found: dict[str, float] = {}

    def take(passes: int) -> None:
        for _ in range(passes):
            found.update(model.evaluate(**given, verbose=0, return_dict=True))

    take(2)
    serve(take, {"keras": keras.__version__, "tensorflow": tf.__version__}, lambda: found)
