"""A training loop of W5 to W8 that is written by hand, without the engine.

As in benchmarks/bare.py, the whole loop is in the graph, data is gathered from memory in the graph,
and the loop has no metrics, no check of the gradient, no masks and no checkpoints. Order of the
examples, augmentation and updates are those of the engine. benchmarks/real/stock.py computes the
same with TensorFlow's usual operations.

    python -m benchmarks.real.bare W6 float32 [jit] [fused]

serves requests, see benchmarks/serve.py. jit: XLA compiles the whole loop. fused: batch norm in
float32 is TensorFlow's fused kernel, whose sums are less exact: the weights are other ones than the
engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.bare import update_adam  # noqa: E402
from benchmarks.real import arrays  # noqa: E402
from benchmarks.real.augmentation import cropped  # noqa: E402
from benchmarks.real.networks import NETWORKS  # noqa: E402
from benchmarks.real.serving import final_of  # noqa: E402
from benchmarks.real.specs import SEED, SPECS, Spec  # noqa: E402
from benchmarks.serve import serve  # noqa: E402
from engine.models.stateless_random import StatelessRNG  # noqa: E402
from engine.optim.clipping import Clip  # noqa: E402
from pipelines import permutation  # noqa: E402

DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16}
_AUGMENTATION_STREAM = -1  # of random numbers, as in the engine


class Bare:
    """The loop by hand and its weights.

    Args:
      spec: what it trains.
      precision: "float32" or "bfloat16".
      jit: whether XLA compiles the whole loop.
      weights: initial weights by name; None: those of `arrays.initial`.
      shuffled: whether the order is the engine's; else that of the arrays, without augmentation.

    Attributes:
      weights: variables by name.
      moving: moving mean and variance of each batch norm, by its name.
      loss: mean loss of the last step.
    """

    def __init__(
        self,
        spec: Spec,
        precision: str = "float32",
        jit: bool = False,
        weights: Mapping[str, np.ndarray] | None = None,
        shuffled: bool = True,
    ) -> None:
        self._spec, self._dtype, self._jit = spec, DTYPES[precision], jit
        self._shuffled, self._step, self.loss = shuffled, 0, float("nan")
        self._inputs, self._targets = map(tf.constant, arrays.examples_of(spec))
        values = arrays.initial(spec) if weights is None else weights
        self.weights = {name: tf.Variable(value) for name, value in values.items()}
        self._slots = [
            [tf.Variable(tf.zeros_like(weight)) for weight in self.weights.values()]
            for _ in range(1 if spec.optimizer == "momentum" else 2)
        ]
        normed = [name for name in self.weights if name.endswith("/scale")]
        self.moving = {
            name.removesuffix("/scale"): [
                tf.Variable(tf.zeros_like(self.weights[name])),
                tf.Variable(tf.ones_like(self.weights[name])),
            ]
            for name in (normed if spec.network in ("plain", "resnet") else ())
        }
        # As a function that is not inlined: TensorFlow then finds oneDNN's gradient of a max pool.
        apart = spec.network == "plain" and not jit
        self._gradients = (
            tf.function(
                self._computed, autograph=False, experimental_attributes={"_noinline": True}
            )
            if apart
            else self._computed
        )
        self._compiled = tf.function(self._steps, autograph=False, jit_compile=jit)

    def take(self, steps: int) -> None:
        """Trains for a number of steps, with one call of the graph for the steps of each epoch."""
        spec = self._spec
        per_epoch = spec.examples // spec.batch
        while steps:
            epoch, at = divmod(self._step, per_epoch)
            portion = min(steps, per_epoch - at)
            order = np.arange(spec.examples, dtype=np.int32)
            if self._shuffled:
                order = permutation(SEED, epoch, spec.examples)
            last, loss = self._compiled(
                tf.constant(self._step, tf.int64),
                tf.constant(portion, tf.int64),
                tf.constant(order),
            )
            self._step, self.loss = int(last), float(loss)
            steps -= portion

    def _steps(self, step: tf.Tensor, steps: tf.Tensor, order: tf.Tensor) -> list[tf.Tensor]:
        end = step + steps
        return tf.while_loop(
            lambda step, _: step < end,
            lambda step, _: self._one(step, order),
            [step, tf.zeros([])],
            parallel_iterations=1,
        )

    def _one(self, step: tf.Tensor, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spec = self._spec
        epoch, at = step // (spec.examples // spec.batch), step % (spec.examples // spec.batch)
        chosen = tf.slice(order, [at * spec.batch], [spec.batch])
        inputs, targets = tf.gather(self._inputs, chosen), tf.gather(self._targets, chosen)
        if spec.augment and self._shuffled:
            noise = StatelessRNG(SEED, epoch, at * spec.batch, compiled=self._jit)
            numbers = noise.uniform(_AUGMENTATION_STREAM, spec.batch, 3)
            inputs = cropped(inputs, numbers[:, :2], numbers[:, 2:] >= 0.5)
        loss, gradients, moments = self._gradients(inputs, targets)
        self._update(step, gradients)
        rate = 1 - spec.momentum
        kept = [each for pair in self.moving.values() for each in pair]
        for moving, batch in zip(kept, moments, strict=True):
            moving.assign_add(rate * (batch - moving))
        return step + 1, loss

    def _computed(
        self, inputs: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Returns the mean loss, the gradients, and the statistics of the batch norms."""
        weights = list(self.weights.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            found = {name: tf.convert_to_tensor(w) for name, w in self.weights.items()}
            network = NETWORKS[self._spec.network]
            logits, statistics = network(self._spec, found, inputs, self._dtype)
            labels = tf.reshape(tf.cast(targets, tf.int32), [-1])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, weights)]
        return loss, gradients, [each for pair in statistics.values() for each in pair]

    def _update(self, step: tf.Tensor, gradients: list[tf.Tensor]) -> None:
        settings, weights = self._spec.settings, list(self.weights.values())
        if "clip" in settings:
            gradients, _ = Clip(norm=settings["clip"], compiled=self._jit)(gradients)
        rate = tf.constant(settings["rate"], tf.float32)
        if "decay" in settings:
            decay = tf.constant(settings["rate"] * settings["decay"], tf.float32)
            for weight in (each for each in weights if decays(each)):
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=weight.handle, alpha=decay, delta=weight
                )
        if self._spec.optimizer == "momentum":
            for gradient, weight, velocity in zip(gradients, weights, *self._slots, strict=True):
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=weight.handle,
                    accum=velocity.handle,
                    lr=rate,
                    grad=gradient,
                    momentum=settings["momentum"],
                )
        else:
            own = {"beta_2": settings["beta_2"], "epsilon": settings["epsilon"]}
            update_adam(step, gradients, weights, *self._slots, rate=settings["rate"], **own)


def decays(weight: tf.Variable) -> bool:
    """Returns whether weight decay applies: not to biases, scales, and the class token."""
    return weight.shape.rank > 1


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    spec = SPECS[sys.argv[1]]._replace(fused="fused" in sys.argv[3:])
    bare = Bare(spec, sys.argv[2], jit="jit" in sys.argv[3:])
    bare.take(1)
    serve(bare.take, {"tensorflow": tf.__version__}, lambda: final_of(bare.loss))


if __name__ == "__main__":
    main()
