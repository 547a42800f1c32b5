"""What a layer is given, and what it must offer: the contract between models and their caller."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow as tf

from models.noise import Noise

Shape = tuple[int, ...]  # without the batch dimension


def identity(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sum over one replica."""
    return tensors


class Update(NamedTuple):
    """What a layer proposes for one of its non-trainable variables.

    A global batch may be computed in pieces, each with a proposal of its own: the variable becomes
    their weighted mean, and stays as it is where the weights add up to 0.
    """

    variable: tf.Variable
    value: tf.Tensor  # float32, of the variable's shape
    weight: tf.Tensor  # float32 []


@dataclass(frozen=True)
class Pass:
    """What one forward pass knows besides its inputs.

    A pass writes nothing: what a layer has to say of its non-trainable variables it appends to
    `updates`, and the training step writes it after its verdict on the gradients (L2).

    training: whether dropout drops and batch norm uses the statistics of the batch.
    mask: float32 [rows], 1 for a valid row and 0 for padding; None when all rows are valid.
    noise: where dropout draws from; needed when training a network that drops out.
    dtype: what layers compute in. Weights stay float32 and are cast where they are used.
    all_reduce: sums each tensor over what is computed at the same time on other replicas;
      gradients must flow through it.
    updates: proposals, in the order of the layers.
    """

    training: bool = False
    mask: tf.Tensor | None = None
    noise: Noise | None = None
    dtype: tf.DType = tf.float32
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = identity
    updates: list[Update] = field(default_factory=list)


@dataclass(frozen=True)
class Initializer:
    """Makes the variables of one layer: a pure function of (seed, index of the layer).

    index: the layer's place in its network, from 0.
    kind: the layer's kind; variables are named "{index}_{kind}/{variable}".
    """

    seed: int
    index: int
    kind: str

    def glorot_uniform(self, name: str, shape: Shape) -> tf.Variable:
        """A float32 kernel [..., inputs, outputs], uniform in +-sqrt(6 / (fan in + fan out)).

        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward
        neural networks". A fan is the channels times the positions that the kernel covers.
        """
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        # On the CPU, so that a run starts from the same bits whatever it trains on. Only the draw
        # is placed here: the variable goes where the caller's strategy wants it.
        with tf.device("CPU:0"):
            value = tf.random.stateless_uniform(
                shape,
                seed=tf.constant([self.seed, self.index], tf.int64),
                minval=-limit,
                maxval=limit,
                alg="philox",
            )
        return tf.Variable(value, name=self._name(name))

    def constant(self, name: str, shape: Shape, value: float) -> tf.Variable:
        """A trainable float32 variable that starts as `value` everywhere."""
        return tf.Variable(tf.fill(shape, value), name=self._name(name))

    def statistic(self, name: str, shape: Shape, value: float) -> tf.Variable:
        """A float32 variable that no gradient reaches and that a pass may propose updates for."""
        # Replicas propose the same value, since it comes from an all-reduced sum: any one will do.
        return tf.Variable(
            tf.fill(shape, value),
            name=self._name(name),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _name(self, variable: str) -> str:
        return f"{self.index}_{self.kind}/{variable}"


class Layer(tf.Module):
    """A function of a tensor with variables of its own; the base of all layers.

    A layer is declared as a plain object, and the network that it is put into builds it, once.
    What the constructor refuses or `build` cannot fit raises ValueError with a way out.
    """

    kind: str  # in words, for summaries, errors and variable names: "max pool"

    @property
    def label(self) -> str:
        """The layer in a few words, with what tells it apart: "max pool 2x2"."""
        return self.kind

    def expect_norm(self) -> None:
        """Told before `build` where a batch norm comes next: a bias of its own would do nothing.

        The norm takes any offset away again. The gradient of such a bias is rounding noise, of
        which an optimizer that normalises gradients makes steps of full length, other ones for
        each number of replicas.
        """

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables for inputs [rows, *input_shape]; returns the outputs' shape."""
        raise NotImplementedError

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """What its first [height, width] outputs depend on: the first so many rows and columns.

        And on nothing else, in training too, whatever the size of what it is given; None: on all
        of what it was built for.
        """
        return None

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """Maps [rows, *input_shape] to [rows, *output_shape], both in `call.dtype`."""
        raise NotImplementedError
