"""Base class of layers, and context of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.models.initializer import Initializer, Shape
from engine.models.stateless_random import StatelessRNG, stream_key


class StatisticUpdate(NamedTuple):
    """A new value that a layer proposes for one of its non-trainable variables.

    The training step assigns the weighted mean of the values that all micro-batches and replicas
    propose; if the weights add up to 0, the variable keeps its value. The variable must have an
    aggregation other than NONE, like those that `Initializer.statistic` returns.

    Attributes:
      variable: variable of the layer.
      value: new value, float32, of the variable's shape.
      weight: weight of the value in the mean, float32 [].
      batch: if `value` is a moving average, the value of this micro-batch alone, which the average
        moves towards, float32. `--weights=average:K`, which makes statistics again by a pass over
        the training split, uses it; without it, the pass derives it from `value`.
    """

    variable: tf.Variable
    value: tf.Tensor
    weight: tf.Tensor
    batch: tf.Tensor | None = None


@dataclass(frozen=True)
class ForwardContext:
    """Everything that a forward pass depends on, except its input and the variables.

    A forward pass assigns no variable. A layer appends new values of its non-trainable variables to
    `updates`; the training step assigns their weighted means if all gradients, new values and
    metrics are finite.

    Attributes:
      training: whether dropout is active and batch norm uses the statistics of the batch.
      mask: float32 [rows], 1 for a valid row and 0 for padding; None when all rows are valid.
      noise: random number generator of dropout; required to train a network with dropout.
      dtype: compute dtype of the layers. Weights stay float32 and are cast where they are used.
      all_reduce: differentiable function that sums each tensor over the replicas that share a
        micro-batch, for batch norm; by default `list`, which returns the tensors themselves,
        because no other replica shares it.
      updates: proposed values of non-trainable variables, in the order of the layers.
      penalties: losses that depend only on the weights, such as weight regularization, float32 []
        each; training and evaluation add their sum to the loss of each row, so the mean loss
        contains the sum once.
      compiled: whether XLA compiles the forward pass and its gradient. A layer then selects
        operations that XLA compiles well; TensorFlow's gradient of a max pool, for example, XLA
        does not compile deterministically.
      has_padding: whether rows can be padding; False: the mask is all ones, if there is one. A
        graph then has no choice between micro-batches with and without padding.
    """

    training: bool = False
    mask: tf.Tensor | None = None
    noise: StatelessRNG | None = None
    dtype: tf.DType = tf.float32
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = list
    updates: list[StatisticUpdate] = field(default_factory=list)
    penalties: list[tf.Tensor] = field(default_factory=list)
    compiled: bool = False
    has_padding: bool = True

    @property
    def padding_mask(self) -> tf.Tensor | None:
        """`mask`, or None on a single replica if no row can be padding.

        Several replicas would gain no kernel, and their float32 gradients would round otherwise.
        """
        return self.mask if self.has_padding or not self.is_alone else None

    @property
    def is_alone(self) -> bool:
        """Whether no other replica shares the micro-batch, so that `all_reduce` is the identity."""
        return self.all_reduce is list

    def seed(self, name: str) -> tf.Tensor:
        """Returns a seed for `tf.random.stateless_*` operations, int32 [2].

        The seed is a pure function of (seed of the run, step, index of the first row of the
        micro-batch in the global batch, `name`); in evaluation without `noise`, of only `name`.

        Raises:
          ValueError: in training if `noise` is None.
        """
        if self.noise is not None:
            return self.noise.seed(name)
        if self.training:
            raise ValueError(
                f"the seed of {name} in training needs ForwardContext.noise, which is None: pass a "
                "StatelessRNG"
            )
        return tf.constant(np.array([stream_key(0, name)], np.uint64).view(np.int32))


class Layer(tf.Module):
    """Base class of layers, which map a tensor to a tensor and contain their variables.

    The constructor checks the settings; `build`, which the network calls once, creates the
    variables. Both raise ValueError, with a remedy, for settings or shapes that are unsupported.
    """

    kind: str  # type of the layer, in summaries, errors and variable names, such as "max pool"

    @property
    def label(self) -> str:
        """Short description of the layer and its settings, for example "max pool 2x2"."""
        return self.kind

    def expect_norm(self) -> None:
        """Tells the layer, before `build`, that a batch norm follows, which would cancel its bias.

        This method does nothing. A layer with a bias overrides it to omit the bias if there is no
        activation: the gradient of such a bias is rounding error, which an optimizer that
        normalizes gradients turns into updates of full size that differ between numbers of
        replicas.
        """

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the layer's variables, if it has any, and returns the output shape.

        `input_shape` and the output shape have no batch axis. Layers must implement this method.

        Raises:
          ValueError: if the layer does not support `input_shape`.
        """
        raise NotImplementedError

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns how much of an input image the top left part of the output image depends on.

        Args:
          height: number of rows of that part.
          width: number of columns of that part.

        Returns:
          (rows, columns): the part depends on no input outside the first `rows` rows and the first
          `columns` columns, for any input size, also in training. None, as in this base class: the
          part can depend on the whole input.
        """
        return None

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps `[rows, *input_shape]` to `[rows, *output_shape]`; floats are in `context.dtype`."""
        raise NotImplementedError
