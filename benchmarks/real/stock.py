"""W5 to W8 in TensorFlow's usual operations and Keras's optimizers, one step a call.

It shares no formula with the loop by hand (benchmarks/real/bare.py), which has to end with the same
weights up to rounding, so that the loop is known to train what it should.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.real import arrays
from benchmarks.real.specs import Spec


class Stock:
    """A training of a workload in the order of its arrays, without augmentation, in float32.

    Args:
      spec: what it trains.
      weights: initial weights by name.

    Attributes:
      weights: variables by name.
    """

    def __init__(self, spec: Spec, weights: dict[str, np.ndarray]) -> None:
        self._spec = spec
        self._inputs, self._targets = arrays.examples_of(spec)
        self.weights = {
            name: tf.Variable(value, name=name.replace("/", "_").replace(".", "_"))
            for name, value in weights.items()
        }
        self._optimizer = _optimizer(spec)
        vectors = [v for v in self.weights.values() if v.shape.rank < 2]
        if spec.settings.get("decay"):
            self._optimizer.exclude_from_weight_decay(var_list=vectors)
        self._optimizer.build(list(self.weights.values()))

    def take(self, steps: int) -> list[float]:
        """Trains on the first batches; returns the mean loss of each step, before its update."""
        losses, batch = [], self._spec.batch
        for step in range(steps):
            rows = slice(step * batch, (step + 1) * batch)
            weights = list(self.weights.values())
            with tf.GradientTape() as tape:
                logits = self._logits(tf.constant(self._inputs[rows]))
                targets = tf.cast(self._targets[rows], tf.int32)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
                )
            gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, weights)]
            if "clip" in self._spec.settings:
                gradients, _ = tf.clip_by_global_norm(gradients, self._spec.settings["clip"])
            self._optimizer.apply_gradients(zip(gradients, weights, strict=True))
            losses.append(float(loss))
        return losses

    def _logits(self, inputs: tf.Tensor) -> tf.Tensor:
        spec, w = self._spec, self.weights
        if spec.network == "plain":
            x = tf.cast(inputs, tf.float32) / 255
            for place in range(6):
                x = tf.nn.relu(self._normed(f"{place}", x, 1))
                if place % 2:
                    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            return tf.reshape(x, [spec.batch, -1]) @ w["head/kernel"] + w["head/bias"]
        if spec.network == "resnet":
            x = tf.nn.relu(self._normed("stem", tf.cast(inputs, tf.float32) / 255, 1))
            for stage in range(3):
                for block in range(spec.sizes["blocks"]):
                    stride = 2 if stage and not block else 1
                    y = tf.nn.relu(self._normed(f"{stage}.{block}.0", x, stride))
                    y = self._normed(f"{stage}.{block}.1", y, 1)
                    if stride == 2:
                        taken = x[:, ::2, ::2]
                        x = tf.concat([taken, tf.zeros_like(taken)], -1)
                    x = tf.nn.relu(x + y)
            return tf.reduce_mean(x, [1, 2]) @ w["head/kernel"] + w["head/bias"]
        if spec.network == "transformer":
            x = tf.nn.embedding_lookup(w["tokens/table"], tf.cast(inputs, tf.int32))
            x = self._blocks(x + w["positions/table"], causal=True)
            return x @ tf.transpose(w["tokens/table"])
        patch = spec.sizes["patch"]
        x = tf.nn.conv2d(tf.cast(inputs, tf.float32) / 255, w["patches/kernel"], patch, "VALID")
        x = tf.reshape(x + w["patches/bias"], [spec.batch, -1, spec.sizes["units"]])
        token = tf.tile(w["class/token"][None, None], [spec.batch, 1, 1])
        x = tf.concat([token, x], 1) + w["positions/table"]
        return self._blocks(x, causal=False)[:, 0] @ w["head/kernel"] + w["head/bias"]

    def _blocks(self, x: tf.Tensor, causal: bool) -> tf.Tensor:
        w, heads = self.weights, self._spec.sizes["heads"]
        tokens, units = x.shape[1:]
        for block in range(self._spec.sizes["depth"]):
            y = self._layer_norm(f"{block}/norm_1", x)
            query, key, value = tf.split(y @ w[f"{block}/attention/kernel"], 3, -1)
            query += w[f"{block}/attention/query_bias"]
            value += w[f"{block}/attention/value_bias"]
            mixed = []
            for q, k, v in zip(
                *(tf.split(each, heads, -1) for each in (query, key, value)), strict=True
            ):
                scores = tf.einsum("btd,bsd->bts", q, k) / np.sqrt(units // heads)
                if causal:
                    hidden = np.triu(np.ones([tokens, tokens], bool), 1)
                    scores = tf.where(hidden, -np.inf, scores)
                mixed.append(tf.einsum("bts,bsd->btd", tf.nn.softmax(scores), v))
            x += self._dense(f"{block}/output", tf.concat(mixed, -1))
            y = tf.nn.gelu(self._dense(f"{block}/expand", self._layer_norm(f"{block}/norm_2", x)))
            x += self._dense(f"{block}/contract", y)
        return self._layer_norm("norm", x)

    def _dense(self, name: str, x: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(x, self.weights[f"{name}/kernel"], 1) + self.weights[f"{name}/bias"]

    def _layer_norm(self, name: str, x: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        scale, offset = self.weights[f"{name}/scale"], self.weights[f"{name}/offset"]
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, self._spec.epsilon)

    def _normed(self, name: str, x: tf.Tensor, stride: int) -> tf.Tensor:
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.conv2d(x, self.weights[f"{name}/kernel"], stride, "VALID")
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        scale, offset = self.weights[f"{name}/scale"], self.weights[f"{name}/offset"]
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, self._spec.epsilon)


def _optimizer(spec: Spec):
    """Returns Keras's optimizer of a workload."""
    import keras

    settings = spec.settings
    if spec.optimizer == "momentum":
        return keras.optimizers.SGD(
            settings["rate"], settings["momentum"], weight_decay=settings["decay"]
        )
    own = {"beta_2": settings["beta_2"], "epsilon": settings["epsilon"]}
    if spec.optimizer == "adam":
        return keras.optimizers.Adam(settings["rate"], **own)
    return keras.optimizers.AdamW(settings["rate"], weight_decay=settings["decay"], **own)
