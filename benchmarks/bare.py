"""A hand-written training loop that computes the same updates as the engine, without the engine.

The loop is optimized only for speed: many steps in one `tf.function`, data gathered in the graph,
max pooling before bias and ReLU, the fused Adam kernel. It has no metrics, no bad-step detector, no
masks and no checkpoints. Initial weights, order and dropout are those of the engine. The loop and
the engine end with the same weights up to rounding, and with bitwise equal weights if compiler and
processor round both in the same way.

    python -m benchmarks.bare W1 mnist.npz [jit]      serves requests, see benchmarks/serve.py

jit: XLA compiles the whole loop.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

from benchmarks.workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload
from engine.assembly import automatic_options
from engine.runtime.startup import import_tensorflow

if __name__ == "__main__":  # oneDNN as for Tapeline
    automatic_options.prepare([*WORKLOADS[sys.argv[1]].options, "--mode=benchmark"])
import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.serve import serve  # noqa: E402
from engine.models.stateless_random import stream_key  # noqa: E402
from pipelines import permutation  # noqa: E402
from tapeline import models  # noqa: E402

BETA_1, BETA_2, EPSILON = float(np.float32(0.9)), float(np.float32(0.999)), 1e-7
DROPOUT_LAYER = 5  # index of the layer, which selects its random stream
SEEN = 26  # rows and columns of an image that affect the output; the last pool drops the others
MODELS = {"convolutional": "seed_003", "dense": "mlp"}


def update_adam(
    step: tf.Tensor,
    gradients: Sequence[tf.Tensor],
    weights: Sequence[tf.Variable],
    means: Sequence[tf.Variable],
    squares: Sequence[tf.Variable],
    rate: float = RATE,
    beta_2: float = BETA_2,
    epsilon: float = EPSILON,
) -> None:
    """Updates weights in place by Adam (Kingma and Ba, 2015).

    Args:
      step: number of earlier updates, an integer [].
      gradients: gradient of each weight, float32.
      weights: float32 variables.
      means: moving mean of the gradient of each weight.
      squares: moving mean of the squared gradient of each weight.
      rate: learning rate.
      beta_2: decay of the moving mean of the squared gradient.
      epsilon: number that is added to the root of that mean.
    """
    beta_2 = float(np.float32(beta_2))
    turn = tf.cast(step + 1, tf.float64)
    correction = tf.sqrt(1 - tf.constant(beta_2, tf.float64) ** turn)
    correction /= 1 - tf.constant(BETA_1, tf.float64) ** turn
    # As in the engine: the schedule is computed in float64, the kernel takes float32.
    corrected = tf.cast(rate * correction, tf.float32)
    for gradient, weight, mean, square in zip(gradients, weights, means, squares, strict=True):
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=corrected,
            beta1=BETA_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )


def add_bias(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Adds a bias of the dtype of `x`; its gradient is summed in float32, as in the engine.

    TensorFlow's gradient of a bias in bfloat16 is summed in bfloat16 on a CPU.
    """
    return tf.nn.bias_add(x, bias) if x.dtype == tf.float32 else _add_bias(x, bias)


@tf.custom_gradient
def _add_bias(x, bias):
    axes = list(range(x.shape.rank - 1))
    return tf.nn.bias_add(x, bias), lambda upstream: (upstream, tf.reduce_sum(upstream, axes))


class Bare:
    """The hand-written loop and its weights.

    Args:
      workload: the network and its settings.
      images: uint8 [n, 28, 28, 1].
      labels: int32 [n].
      jit: whether XLA compiles the whole loop.
    """

    def __init__(
        self, workload: Workload, images: np.ndarray, labels: np.ndarray, jit: bool = False
    ) -> None:
        self._workload = workload
        self._examples, self._batch = len(images), workload.batch
        self._images, self._labels = tf.constant(images), tf.constant(labels)
        initial = models.build(
            MODELS[workload.network],
            input_shape=(28, 28, 1),
            output_shape=(10,),
            seed=SEED,
            hidden=workload.hidden,
        )
        self.weights = [tf.Variable(v.numpy()) for v in initial.trainable_variables]
        self._means = [tf.Variable(tf.zeros_like(w)) for w in self.weights]
        self._squares = [tf.Variable(tf.zeros_like(w)) for w in self.weights]
        self._step = 0
        self._forward = {"convolutional": self._convolutional, "dense": self._dense}[
            workload.network
        ]
        self._dtype = tf.bfloat16 if workload.bfloat16 else tf.float32
        self._compiled = tf.function(self._steps, autograph=False, jit_compile=jit)

    def take(self, steps: int) -> None:
        """Trains for a number of steps, with one call of the graph for the steps of each epoch."""
        per_epoch = self._examples // self._batch
        while steps:
            epoch, at = divmod(self._step, per_epoch)
            portion = min(steps, per_epoch - at)
            order = tf.constant(permutation(SEED, epoch, self._examples))
            last = self._compiled(
                tf.constant(self._step, tf.int64), tf.constant(portion, tf.int64), order
            )
            self._step = int(last)
            steps -= portion

    def _steps(self, step: tf.Tensor, steps: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        end = step + steps
        return tf.while_loop(
            lambda step: step < end,
            lambda step: [self._one(step, order)],
            [step],
            parallel_iterations=1,
        )[0]

    def _one(self, step: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        per_epoch = self._examples // self._batch
        begin = step % per_epoch * self._batch
        chosen = tf.slice(order, [begin], [self._batch])
        images, labels = tf.gather(self._images, chosen), tf.gather(self._labels, chosen)
        if self._workload.network == "convolutional":
            images = images[:, :SEEN, :SEEN]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.weights)
            x = tf.cast(tf.cast(images, tf.float32) / 255, self._dtype)  # as the engine rounds
            logits = tf.cast(self._forward(x, step), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / self._batch
        gradients = tape.gradient(loss, self.weights)
        update_adam(step, gradients, self.weights, self._means, self._squares)
        return step + 1

    def _convolutional(self, x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        bias_1, kernel_1, bias_2, kernel_2, bias_3, kernel_3 = (
            tf.cast(weight, self._dtype) for weight in self.weights
        )
        for kernel, bias in ((kernel_1, bias_1), (kernel_2, bias_2)):
            x = tf.nn.max_pool2d(tf.nn.conv2d(x, kernel, 1, "VALID"), 2, 2, "VALID")
            x = tf.nn.relu(add_bias(x, bias))
        x = tf.reshape(x, [-1, 1600])
        drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[self._batch, 52],  # 1,600 bits, padded to blocks of 128
            key=tf.constant([stream_key(SEED, DROPOUT_LAYER)], tf.uint64),
            counter=tf.cast(tf.stack([tf.zeros([], tf.int64), step]), tf.uint64),
            alg=1,
            dtype=tf.uint32,
        )
        coins = tf.reshape(tf.bitcast(drawn, tf.uint8), [self._batch, 208])[:, :200]
        doubled = tf.constant(np.arange(256)[:, None] >> np.arange(8) & 1, self._dtype) * 2
        x *= tf.reshape(tf.gather(doubled, tf.cast(coins, tf.int32)), [-1, 1600])
        return add_bias(tf.matmul(x, kernel_3), bias_3)

    def _dense(self, x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        del step
        x = tf.reshape(x, [-1, 784])
        biases, kernels = self.weights[::2], self.weights[1::2]
        for place, (bias, kernel) in enumerate(zip(biases, kernels, strict=True)):
            if place:
                x = tf.nn.relu(x)
            x = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        return x

    def sha256(self) -> str:
        """Returns the hexadecimal SHA-256 of the weights' bytes, in the engine's order."""
        digest = hashlib.sha256()
        for weight in self.weights:
            digest.update(weight.numpy().tobytes())
        return digest.hexdigest()


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload = WORKLOADS[sys.argv[1]]
    with np.load(sys.argv[2]) as data:
        count = EXAMPLES[workload.batch]
        images, labels = data["images"][:count], data["labels"][:count].astype(np.int32)
    bare = Bare(workload, images, labels, jit="jit" in sys.argv[3:])
    bare.take(1)
    serve(bare.take, {"tensorflow": tf.__version__}, bare.sha256)


if __name__ == "__main__":
    main()
