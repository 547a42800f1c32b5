"""The interface between models and their callers: forward context, initializer and layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow as tf

from engine.models.stateless_random import StatelessRNG

Shape = tuple[int, ...]  # without the batch dimension


def identity(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the tensors unchanged: their sum over one replica."""
    return tensors


class StatisticUpdate(NamedTuple):
    """A new value that a layer proposes for one of its non-trainable variables.

    Each micro-batch of a global batch proposes a value. The variable becomes their weighted mean,
    and keeps its value where the weights add up to 0.
    """

    variable: tf.Variable
    value: tf.Tensor  # float32, of the variable's shape
    weight: tf.Tensor  # float32 []


@dataclass(frozen=True)
class ForwardContext:
    """The context of a forward pass: everything it depends on except its inputs.

    A forward pass assigns no variable. A layer appends new values of its non-trainable variables to
    `updates`, and the training step assigns them after it has checked the gradients (L2).

    Attributes:
      training: whether dropout is active and batch norm uses the statistics of the batch.
      mask: float32 [rows], 1 for a valid row and 0 for padding; None when all rows are valid.
      noise: random numbers of dropout; required to train a network with dropout.
      dtype: dtype that layers compute in. Weights stay float32 and are cast where they are used.
      all_reduce: sums each tensor over the replicas that compute at the same time; differentiable.
      updates: proposed values, in the order of the layers.
    """

    training: bool = False
    mask: tf.Tensor | None = None
    noise: StatelessRNG | None = None
    dtype: tf.DType = tf.float32
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = identity
    updates: list[StatisticUpdate] = field(default_factory=list)


@dataclass(frozen=True)
class Initializer:
    """Creates the variables of one layer: a pure function of (seed, index of the layer).

    Attributes:
      index: index of the layer in its network, from 0.
      kind: kind of the layer; variables are named "{index}_{kind}/{variable}".
    """

    seed: int
    index: int
    kind: str

    def glorot_uniform(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a Glorot-uniform kernel, float32 [..., inputs, outputs].

        Uniform in +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010, "Understanding the
        difficulty of training deep feedforward neural networks"). A fan is the number of channels
        times the number of positions that the kernel covers.
        """
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        # On the CPU, so that a run starts from the same bits on any device. Only the draw is placed
        # here: the caller's strategy places the variable.
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
        """Returns a trainable float32 variable whose elements all start at `value`."""
        return tf.Variable(tf.fill(shape, value), name=self._name(name))

    def statistic(self, name: str, shape: Shape, value: float) -> tf.Variable:
        """Returns a non-trainable float32 variable, for which a forward pass may propose values."""
        # All replicas propose the same value, computed from an all-reduced sum: any one will do.
        return tf.Variable(
            tf.fill(shape, value),
            name=self._name(name),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _name(self, variable: str) -> str:
        return f"{self.index}_{self.kind}/{variable}"


class Layer(tf.Module):
    """Base class of layers: a function of a tensor, with its own variables.

    The constructor creates no variables; the network that contains the layer builds it, once. The
    constructor and `build` raise ValueError, with a remedy, for values that they do not support.
    """

    kind: str  # for summaries, errors and variable names, for example "max pool"

    @property
    def label(self) -> str:
        """A short description of the layer and its settings, for example "max pool 2x2"."""
        return self.kind

    def expect_norm(self) -> None:
        """Removes the bias where a batch norm follows, which cancels it; called before `build`.

        The gradient of such a bias is rounding noise. An optimizer that normalizes gradients turns
        the noise into updates of full size, which differ between numbers of replicas.
        """

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables for inputs `[rows, *input_shape]`; returns the output shape."""
        raise NotImplementedError

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns how many rows and columns of the input the first [height, width] outputs need.

        These outputs depend on those first rows and columns only, also in training, for any size of
        the input. None: they depend on the whole input that the layer was built for.
        """
        return None

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, *input_shape] to [rows, *output_shape], both in `context.dtype`."""
        raise NotImplementedError
