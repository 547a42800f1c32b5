"""Measures training steps of a loop written by hand, without the engine, on a GPU.

    python -m benchmarks.gpu.bare_steps resnet50 [--rehearse] [--jit=loop] [--deterministic]

The network, the mathematics of the loss and of Adam, and the number of steps in a call of the graph
are those of the engine's run. The loop has no metrics, no check of the gradient, no masks and no
checkpoints. A network of Keras is called as Keras is meant to be, with its own batch norm and a
policy of mixed precision. W1 trains on all examples (benchmarks/bare.py), the others on one batch
in device memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.bare import Bare, update_adam  # noqa: E402
from benchmarks.gpu import networks, timing  # noqa: E402
from benchmarks.gpu.workloads import GpuWorkload  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402
from engine.models.base import ForwardContext  # noqa: E402
from engine.optim.precision import compute_dtype  # noqa: E402

# Returns the loss of each example of a batch of inputs and targets, float32 [rows].
Losses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class BareLoop:
    """A loop by hand on one batch: forward pass, gradients, and Adam's fused kernel.

    Args:
      losses: returns the losses of a batch.
      weights: the variables that are trained.
      inputs: inputs of the batch.
      targets: targets of the batch.
      jit: whether XLA compiles the whole loop.
    """

    def __init__(
        self,
        losses: Losses,
        weights: list[tf.Variable],
        inputs: np.ndarray,
        targets: np.ndarray,
        jit: bool,
    ) -> None:
        self.weights, self._losses = weights, losses
        # Constants, because TensorFlow keeps variables of integers on the host.
        self._inputs, self._targets = tf.constant(inputs), tf.constant(targets)
        self._means = [tf.Variable(tf.zeros_like(w)) for w in weights]
        self._squares = [tf.Variable(tf.zeros_like(w)) for w in weights]
        self._step = 0
        self._call = tf.function(self._steps, autograph=False, jit_compile=jit)

    def take(self, steps: int) -> float:
        """Trains for a number of steps, in one call of the graph; returns the last mean loss."""
        begin = tf.constant(self._step, tf.int64)
        step, loss = self._call(begin, begin + steps)
        self._step = int(step)
        return float(loss)

    def _steps(self, begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
        return tf.while_loop(
            lambda step, _: step < end,
            lambda step, _: self._one(step),
            [begin, tf.zeros([])],
            parallel_iterations=1,
        )

    def _one(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.weights)
            loss = tf.reduce_mean(self._losses(self._inputs, self._targets))
        gradients = tape.gradient(loss, self.weights)
        update_adam(step, gradients, self.weights, self._means, self._squares)
        return step + 1, loss


def network_of(workload: GpuWorkload) -> tuple[Losses, list[tf.Variable]]:
    """Returns the losses of a workload's network, and its trainable variables."""
    data, arguments = workload.data, workload.arguments
    if workload.kind == "transformer":
        module = networks.GPT2(context=data["context"], **arguments)
        context = ForwardContext(training=True, dtype=compute_dtype(workload.precision))

        def of_tokens(ids: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(networks.token_losses(module(ids, context), targets), -1)

        return of_tokens, list(module.trainable_variables)
    import keras

    keras.mixed_precision.set_global_policy(workload.precision)
    shape = data["side"], data["side"], data["channels"]
    model = networks.keras_residual(shape, data["classes"], arguments["network"])

    def of_pictures(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(tf.cast(images, tf.float32) / 255, compute_dtype(workload.precision))
        logits = tf.cast(model(scaled, training=True), tf.float32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    return of_pictures, [variable.value for variable in model.trainable_variables]


def examples_of(workload: GpuWorkload, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs and targets of a workload's first examples."""
    make = networks.token_arrays if workload.kind == "transformer" else networks.picture_arrays
    return make(**{**workload.data, "examples": count})


def loop_of(workload: GpuWorkload, jit: bool) -> BareLoop | Bare:
    """Returns the loop by hand of a workload.

    Args:
      workload: what it trains.
      jit: whether XLA compiles the whole loop.
    """
    if workload.kind == "convolutional":
        same = WORKLOADS[workload.name]._replace(batch=workload.batch)
        return Bare(same, *examples_of(workload, workload.data["examples"]), jit=jit)
    losses, weights = network_of(workload)
    return BareLoop(losses, weights, *examples_of(workload, workload.batch), jit=jit)


def main() -> None:
    """Measures the steps of a workload, and prints lines of JSON."""
    parser = timing.parser("bare_steps", __doc__)
    parser.add_argument("--jit", choices=("loop", "off"), default="loop")
    parser.add_argument("--deterministic", action="store_true", help="op determinism")
    args = parser.parse_args()
    workload, length = timing.workload_of(args)
    tf.random.set_seed(0)
    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    timing.grow_memory(tf)
    loop = loop_of(workload, args.jit == "loop")
    figures: dict[str, Any] = timing.described(tf, workload, "bare loop", args.jit)
    figures["feed"] = "one repeated batch" if isinstance(loop, BareLoop) else "resident"

    def take(steps: int) -> None:
        loop.take(steps)
        timing.synchronize(tf)

    timing.measure(take, figures, length)


if __name__ == "__main__":
    sys.exit(main())
