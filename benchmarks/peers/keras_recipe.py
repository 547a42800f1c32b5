"""Trains the network of one of the five seed systems with Keras's `fit` and its author's settings.

    python keras_recipe.py mnist.npz seed_003 SEED

Images are divided by 255, and Keras splits off the validation examples. Labels are one-hot, and
callbacks are used, where the author did so. Prints one line of JSON: test accuracy and loss, the
seconds of `fit`, the history that `fit` returns, and the package versions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from keras import layers


class Recipe(NamedTuple):
    """An author's network and training settings.

    Attributes:
      filters: number of filters of each convolution.
      dense: units of a hidden layer; 0: no hidden layer.
      dropout: dropout rate before the last layer; 0: no dropout.
      epochs: maximum number of epochs.
      batch: batch size.
      validation: fraction of the training examples that `fit` uses for validation.
      one_hot: whether labels are one-hot vectors.
      plain: number of convolutions without a max pool after them; they are the last ones.
    """

    filters: tuple[int, ...]
    dense: int
    dropout: float
    epochs: int
    batch: int
    validation: float
    one_hot: bool
    plain: int = 0


RECIPES = {
    "seed_000": Recipe((32, 32), 64, 0.0, 11, 32, 0.0, False),
    "seed_001": Recipe((32, 64, 64), 64, 0.0, 5, 64, 0.2, False, plain=1),
    "seed_002": Recipe((10, 5), 0, 0.0, 10, 32, 0.2, True),
    "seed_003": Recipe((32, 64), 0, 0.5, 15, 128, 0.1, True),
    "seed_004": Recipe((32, 64), 0, 0.25, 5, 32, 0.3, True),
}


def network(recipe: Recipe) -> keras.Model:
    """Returns the network of a recipe, whose last layer is a softmax."""
    stack: list[Any] = [keras.Input((28, 28, 1))]
    for at, filters in enumerate(recipe.filters):
        stack.append(layers.Conv2D(filters, 3, activation="relu"))
        if at < len(recipe.filters) - recipe.plain:
            stack.append(layers.MaxPooling2D(2))
    stack.append(layers.Flatten())
    if recipe.dense:
        stack.append(layers.Dense(recipe.dense, activation="relu"))
    if recipe.dropout:
        stack.append(layers.Dropout(recipe.dropout))
    return keras.Sequential([*stack, layers.Dense(10, activation="softmax")])


def main() -> None:
    """Trains the network, evaluates it on the test split and prints the results."""
    path, name, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    recipe = RECIPES[name]
    with np.load(path) as data:
        images, labels = data["images"] / np.float32(255), data["labels"].astype(np.int32)
        test = data["test_images"] / np.float32(255), data["test_labels"].astype(np.int32)
    keras.utils.set_random_seed(seed)
    model = network(recipe)
    loss = "categorical_crossentropy" if recipe.one_hot else "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"])
    targets = (lambda of: keras.utils.to_categorical(of, 10)) if recipe.one_hot else (lambda of: of)
    with tempfile.TemporaryDirectory() as scratch:
        best, callbacks = os.path.join(scratch, "best.keras"), []
        if name == "seed_004":
            callbacks = [
                keras.callbacks.EarlyStopping("val_accuracy", min_delta=0.01, patience=4),
                keras.callbacks.ModelCheckpoint(best, "val_accuracy", save_best_only=True),
            ]
        started = time.perf_counter()
        history = model.fit(
            images,
            targets(labels),
            recipe.batch,
            recipe.epochs,
            validation_split=recipe.validation,
            callbacks=callbacks,
            verbose=0,
        )
        seconds = time.perf_counter() - started
        if callbacks:
            model = keras.models.load_model(best)
    scored = model.evaluate(test[0], targets(test[1]), 512, verbose=0, return_dict=True)
    told = {
        "accuracy": float(scored["accuracy"]),
        "loss": float(scored["loss"]),
        "seconds": seconds,
        "history": {key: list(map(float, values)) for key, values in history.history.items()},
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
