"""Network that applies a list of layers in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.batch_norm import BatchNorm
from engine.models.layers import (
    Activation,
    Convolution,
    Flatten,
    MaxPool,
    SelectToken,
    TransformerBlock,
)
from engine.models.layers.composite import with_nested


class Sequential(tf.Module):
    """Network that applies a list of layers in order, from one tensor to one tensor.

    The constructor builds the layers, in the caller's `tf.distribute` scope if there is one. The
    initial weights are a pure function of (seed, index of the layer). `trainable_variables` are
    ordered by layer and, within a layer, by attribute name; the names of optimizer slots in
    checkpoints rely on this order.

    Args:
      name: name of the network, a Python identifier.
      layers: the layers, which must not have been built.
      input_shape: shape of the inputs, without the batch axis.
      seed: seed of the initial weights.

    Raises:
      ValueError: if a layer is listed twice or does not support its input shape.
    """

    def __init__(self, name: str, layers: Sequence[Layer], input_shape: Shape, seed: int):
        super().__init__(name)
        listed = [each for layer in layers for each in with_nested(layer)]
        if len({id(layer) for layer in listed}) < len(listed):
            raise ValueError(f"{name}: a layer is listed twice; make one object per layer")
        shapes = [tuple(int(side) for side in input_shape)]
        for index, layer in enumerate(layers):
            following = (x for x in layers[index + 1 :] if not isinstance(x, Flatten | MaxPool))
            if isinstance(next(following, None), BatchNorm):
                layer.expect_norm()
            if isinstance(layer, Activation) and isinstance(layers[max(index - 1, 0)], BatchNorm):
                layer.follow_norm()
            initializer = Initializer(seed, index, layer.kind.replace(" ", "_"))
            shapes.append(layer.build(shapes[-1], initializer))
        self.layers = list(layers)
        self._shapes = shapes
        self._needed_size = _needed_size(self.layers, shapes)

    @property
    def input_shape(self) -> Shape:
        """Shape of the inputs, without the batch dimension."""
        return tuple(self._shapes[0])

    @property
    def output_shapes(self) -> list[Shape]:
        """Output shape of each layer, without the batch dimension."""
        return [tuple(shape) for shape in self._shapes[1:]]

    @property
    def is_initialized_from_data(self) -> bool:
        """Whether a layer has weights that `initialize_from` computes."""
        return any(hasattr(layer, "initialize_from") for layer in self.layers)

    def initialize_from(self, inputs: tf.Tensor) -> None:
        """Initializes the layers whose weights depend on training data; called eagerly, once.

        These are layers of the list that have a method `initialize_from`, which is called with the
        inputs of the layer for training examples: the outputs of the layers before it, in
        evaluation.

        Args:
          inputs: inputs of the network for some training examples, [n, *input_shape].
        """
        context = ForwardContext()
        x = tf.cast(inputs, context.dtype) if inputs.dtype.is_floating else inputs
        last = max(k for k, layer in enumerate(self.layers) if hasattr(layer, "initialize_from"))
        for layer in self.layers[: last + 1]:
            if hasattr(layer, "initialize_from"):
                layer.initialize_from(x)
            if layer is not self.layers[last]:
                x = layer(x, context)

    @contextlib.contextmanager
    def uncropped(self) -> Iterator[None]:
        """Disables, in a `with` block, the cropping of images to the part that affects outputs."""
        size, self._needed_size = self._needed_size, self.input_shape[:2]
        try:
            yield
        finally:
            self._needed_size = size

    def __call__(self, inputs: tf.Tensor, context: ForwardContext | None = None) -> tf.Tensor:
        """Maps inputs `[rows, *input_shape]` to outputs, float32 `[rows, *output_shapes[-1]]`.

        Floating inputs are cast to the compute dtype, integers are not. `context` None stands for
        evaluation in float32.

        Raises:
          ValueError: if the shape of the inputs is not `input_shape`, or a layer does not support
            the inputs or the context, such as a dropout in training without `context.noise`.
        """
        if not inputs.shape[1:].is_compatible_with(self.input_shape):
            raise ValueError(
                f"{self.name} was built for inputs of shape {self.input_shape}, got"
                f" {tuple(inputs.shape[1:])}: resize them, or build it for their shape"
            )
        context = context or ForwardContext()
        x = inputs
        if self._needed_size != self.input_shape[:2]:
            height, width = self._needed_size
            x = x[:, :height, :width]
        if x.dtype.is_floating:
            x = tf.cast(x, context.dtype)
        for index, layer, pool in pooled(self.layers):
            with tf.name_scope(f"{index}_{layer.name}"):
                if isinstance(layer, TransformerBlock) and isinstance(pool, SelectToken):
                    x = layer(x, context, pool.index)
                elif pool and isinstance(layer, Activation):
                    x = layer(pool(x, context), context)
                elif pool and context.training:
                    x = layer.finish(pool(layer.convolve(x, context), context), context)
                elif pool:  # in evaluation, TensorFlow fuses convolution, bias and activation
                    x = pool(layer(x, context), context)
                else:
                    x = layer(x, context)
        return tf.cast(x, tf.float32)


def _needed_size(layers: Sequence[Layer], shapes: Sequence[Shape]) -> Shape:
    """Returns the numbers of first rows and first columns of an image that the outputs depend on.

    If the inputs are not images, returns the first two sides of their shape.
    """
    # A max pool drops incomplete windows; a strided convolution skips what follows its last window.
    if len(shapes[0]) != 3:
        return tuple(shapes[0][:2])
    size: tuple[int, int] | None = None  # of the output of `layer`; None: all
    for layer, shape in zip(reversed(layers), reversed(shapes[1:]), strict=True):
        if size is None and len(shape) == 3:
            size = shape[0], shape[1]
        size = layer.reads(*size) if size else None
    return size or tuple(shapes[0][:2])


def pooled(
    layers: Sequence[Layer],
) -> list[tuple[int, Layer, MaxPool | SelectToken | None]]:
    """Returns (index, layer, max pool or None) tuples; a max pool joins the layer before it.

    The tuple of a convolution or an activation and the max pool right after it has the index of the
    first; any other layer has no max pool. If the max pool is applied before bias and activation,
    these process fewer elements, a quarter for a 2x2 pool. The outputs are bitwise identical,
    because bias, activation and rounding are non-decreasing, and so commute with max pooling. The
    gradients are, too: where the activation maps different elements of a window to the same
    maximum, its slope is 0. A layer whose activation can decrease is not paired. In evaluation,
    fused convolution, bias and activation are faster.

    In the place of a max pool, a `SelectToken` joins a `TransformerBlock`, which then computes that
    token alone.
    """
    stages: list[tuple[int, Layer, MaxPool | SelectToken | None]] = []
    for index, layer in enumerate(layers):
        previous = layers[max(index - 1, 0)]
        joins = isinstance(previous, Convolution | Activation) and previous.is_non_decreasing
        chosen = isinstance(layer, SelectToken) and isinstance(previous, TransformerBlock)
        if (isinstance(layer, MaxPool) and joins) or chosen:
            stages[-1] = (index - 1, previous, layer)
        else:
            stages.append((index, layer, None))
    return stages
