"""Trains with Keras's `fit` until the first epoch that reaches an accuracy on MNIST's test split.

    python keras_until.py mnist.npz SEED 0.99

The network, the training examples (the first nine tenths of the training split), the optimizer, the
batch size and the maximum number of epochs (15) are those of recipes/seed_003.flags. Other settings
are Keras's defaults. Prints one line of JSON: the test accuracy after each epoch, the seconds of
each epoch without the test, and the package versions. Before the training, two steps are trained
and undone, so that the seconds do not include tracing.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from keras_fit import model_of  # first: it says to Keras which backend

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from workloads import RATE, WORKLOADS

EPOCHS = 15
SHARE = 0.9


class Watch(keras.callbacks.Callback):
    """Callback that times epochs, tests after each, and stops at the required accuracy.

    Args:
      images: test images, uint8 [n, 28, 28, 1].
      labels: test labels, int32 [n].
      accuracy: required accuracy, from 0 to 1.

    Attributes:
      seconds: wall time of each epoch in seconds, without the test.
      accuracies: test accuracy after each epoch.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, accuracy: float) -> None:
        super().__init__()
        self._images, self._labels, self._accuracy = images, labels, accuracy
        self.seconds: list[float] = []
        self.accuracies: list[float] = []
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Records the start time of the epoch."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Records duration and test accuracy of the epoch; stops at the required accuracy."""
        self.seconds.append(time.perf_counter() - self._started)
        scored = self.model.evaluate(self._images, self._labels, 512, verbose=0, return_dict=True)
        self.accuracies.append(float(scored["accuracy"]))
        self.model.stop_training = self.accuracies[-1] >= self._accuracy


def main() -> None:
    """Trains the network and prints the results."""
    path, seed, accuracy = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    with np.load(path) as data:
        count = round(SHARE * len(data["images"]))
        images, labels = data["images"][:count], data["labels"][:count].astype(np.int32)
        held_out = data["test_images"], data["test_labels"].astype(np.int32)
    keras.utils.set_random_seed(seed)
    workload = WORKLOADS["W1"]
    model = model_of(workload)
    model.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    _trace(model, images, labels, workload.batch)
    watch = Watch(*held_out, accuracy)
    model.fit(images, labels, workload.batch, EPOCHS, verbose=0, callbacks=[watch])
    told = {
        "seconds": watch.seconds,
        "accuracies": watch.accuracies,
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    print(json.dumps(told), flush=True)


def _trace(model: keras.Model, images: np.ndarray, labels: np.ndarray, batch: int) -> None:
    """Trains on a full batch and one of the last batch's size, to trace both; undoes the steps.

    All variables of the model and the optimizer get their previous values.
    """
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    rows = batch + (len(images) % batch or batch)
    model.fit(images[:rows], labels[:rows], batch, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


if __name__ == "__main__":
    main()
