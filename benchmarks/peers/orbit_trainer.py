"""Serves training with Orbit's StandardTrainer, with a tf.function loop, as a contender.

python orbit_trainer.py W1 mnist.npz '{}'      see benchmarks/serve.py
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import orbit
import tensorflow as tf
import tf_keras
from serve import serve
from workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload


def model_of(workload: Workload) -> tf_keras.Model:
    """Returns the workload's network in tf_keras, which Orbit's examples use."""
    layers = tf_keras.layers
    stack = [layers.Rescaling(1 / 255, input_shape=(28, 28, 1))]
    if workload.network == "convolutional":
        for filters in (32, 64):
            stack += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
        stack += [layers.Flatten(), layers.Dropout(0.5)]
    else:
        stack += [layers.Flatten()]
        stack += [layers.Dense(units, activation="relu") for units in workload.hidden]
    return tf_keras.Sequential([*stack, layers.Dense(10, dtype="float32")])


class Trainer(orbit.StandardTrainer):
    """A trainer with the training step of Orbit's tutorials."""

    def __init__(self, workload: Workload, dataset: tf.data.Dataset) -> None:
        options = orbit.StandardTrainerOptions(use_tf_function=True, use_tf_while_loop=True)
        super().__init__(dataset, options)
        self.model = model_of(workload)
        self.optimizer = tf_keras.optimizers.Adam(RATE)
        self.optimizer.build(self.model.trainable_variables)
        self.loss = tf_keras.metrics.Mean("loss")
        self.accuracy = tf_keras.metrics.SparseCategoricalAccuracy("accuracy")

    def train_loop_begin(self) -> None:
        """Resets the metrics."""
        self.loss.reset_states()
        self.accuracy.reset_states()

    def train_step(self, iterator) -> None:
        """Trains on the next batch of the iterator and updates the metrics."""
        images, labels = next(iterator)
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        self.loss.update_state(loss)
        self.accuracy.update_state(labels, logits)

    def train_loop_end(self) -> dict[str, float]:
        """Returns the mean loss and accuracy since `train_loop_begin`."""
        return {"loss": float(self.loss.result()), "accuracy": float(self.accuracy.result())}


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload = WORKLOADS[sys.argv[1]]
    with np.load(sys.argv[2]) as data:
        count = EXAMPLES[workload.batch]
        images, labels = data["images"][:count], data["labels"][:count].astype(np.int32)
    tf_keras.utils.set_random_seed(SEED)
    if workload.bfloat16:
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    dataset = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .cache()
        .shuffle(10_000, reshuffle_each_iteration=True)
        .repeat()
        .batch(workload.batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    trainer = Trainer(workload, dataset)
    found = {}

    def take(steps: int) -> None:
        found.update(trainer.train(tf.constant(steps)))

    take(2)
    serve(take, {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}, lambda: found)


if __name__ == "__main__":
    main()
