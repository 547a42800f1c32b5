"""Layers built from `tf.nn` operations.

Images are [rows, height, width, channels], vectors [rows, features]. Shapes in `build` have no
batch axis.
"""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.stateless_random import MAX_DROPOUT_RATE

# Each must be a non-decreasing function: `Sequential` may apply a max pool before them.
ACTIVATIONS = {None: tf.identity, "relu": tf.nn.relu}


class _WithKernel(Layer):
    """Base class of layers that apply a kernel, a bias and an optional activation, in this order.

    The bias is omitted if a batch norm follows and the layer has no activation.
    """

    def __init__(self, activation: str | None) -> None:
        super().__init__()
        self.activation = _one_of("activation", activation, tuple(ACTIVATIONS))
        self.has_bias = True

    def expect_norm(self) -> None:
        self.has_bias = self.activation is not None

    def _create_variables(self, kernel_shape: Shape, initializer: Initializer) -> None:
        self.kernel = initializer.glorot_uniform("kernel", kernel_shape)
        if self.has_bias:
            self.bias = initializer.constant("bias", kernel_shape[-1:], 0.0)

    def finish(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Adds any bias and applies the activation; non-decreasing in each element of `x`."""
        if self.has_bias:
            x = tf.nn.bias_add(x, tf.cast(self.bias, context.dtype))
        return ACTIVATIONS[self.activation](x)


class Convolution(_WithKernel):
    """A 2-D convolution with `size` x `size` Glorot-uniform kernels and a zero-initialized bias.

    There is no bias if a batch norm follows and the layer has no activation.
    """

    kind = "convolution"

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        padding: Literal["VALID", "SAME"] = "VALID",
        activation: str | None = None,
    ):
        super().__init__(activation)
        self.filters = _at_least_one("the filters of a convolution", filters)
        self.size = _at_least_one("the size of a convolution", size)
        self.stride = _at_least_one("the stride of a convolution", stride)
        self.padding = _one_of("padding", padding, ("VALID", "SAME"))

    @property
    def label(self) -> str:
        """Label of the layer, for example "convolution 3x3x32 relu"."""
        stride = f"stride {self.stride}" if self.stride > 1 else ""
        parts = [f"convolution {self.size}x{self.size}x{self.filters}", stride, self.activation]
        return " ".join(part for part in parts if part)

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape (height', width', filters)."""
        covered = self.size if self.padding == "VALID" else 1
        height, width, channels = _image_shape(self, input_shape, covered, initializer)
        self._create_variables((self.size, self.size, channels, self.filters), initializer)
        positions = [(side - covered) // self.stride + 1 for side in (height, width)]
        return (*positions, self.filters)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies convolution, bias and activation; returns [rows, height', width', filters]."""
        return self.finish(self.convolve(x, context), context)

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; None for padding SAME."""
        if self.padding == "SAME":
            return None
        return (height - 1) * self.stride + self.size, (width - 1) * self.stride + self.size

    def convolve(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the convolution of `x` with the kernel, without bias and activation."""
        return tf.nn.conv2d(x, tf.cast(self.kernel, context.dtype), self.stride, self.padding)


class MaxPool(Layer):
    """Max pooling over non-overlapping `size` x `size` windows, with VALID padding."""

    kind = "max pool"

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = _at_least_one("the size of a max pool", size)

    @property
    def label(self) -> str:
        """Label of the layer, for example "max pool 2x2"."""
        return f"max pool {self.size}x{self.size}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (height // size, width // size, channels)."""
        height, width, channels = _image_shape(self, input_shape, self.size, initializer)
        return (height // self.size, width // self.size, channels)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the maximum of each window: [rows, height // size, width // size, channels]."""
        return tf.nn.max_pool2d(x, self.size, self.size, "VALID")

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; see `Layer.reads`."""
        return height * self.size, width * self.size


class GlobalAveragePool(Layer):
    """Global average pooling: the mean of each channel over all spatial positions."""

    kind = "global average pool"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (channels,); there are no variables."""
        return _image_shape(self, input_shape, 1, initializer)[-1:]

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Averages [rows, height, width, channels] over all positions to [rows, channels]."""
        # In float32: a 16-bit sum of many numbers loses the small ones to rounding.
        return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]), context.dtype)


class Flatten(Layer):
    """Reshapes each row to a vector, in row-major order."""

    kind = "flatten"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (features,); there are no variables."""
        self.features = math.prod(input_shape)
        return (self.features,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Reshapes [rows, ...] to [rows, features]."""
        return tf.reshape(x, [-1, self.features])


class Dense(_WithKernel):
    """A fully connected layer: Glorot-uniform kernel, zero-initialized bias.

    There is no bias if a batch norm follows and the layer has no activation.
    """

    kind = "dense"

    def __init__(self, units: int, activation: str | None = None):
        super().__init__(activation)
        self.units = _at_least_one("the units of a dense layer", units)

    @property
    def label(self) -> str:
        """Label of the layer, for example "dense relu", without the number of units."""
        return f"dense {self.activation}" if self.activation else "dense"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (units,)."""
        if len(input_shape) != 1:
            raise ValueError(
                f"dense (layer {initializer.index}) takes vectors, got shape {input_shape}:"
                " put Flatten() or GlobalAveragePool() before it"
            )
        self._create_variables((*input_shape, self.units), initializer)
        return (self.units,)

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the kernel, the bias and the activation; returns [rows, units]."""
        return self.finish(tf.matmul(x, tf.cast(self.kernel, context.dtype)), context)


class Activation(Layer):
    """An activation as a separate layer, for example after a batch norm."""

    kind = "activation"

    def __init__(self, activation: str):
        super().__init__()
        self.activation = _one_of("activation", activation, tuple(filter(None, ACTIVATIONS)))

    @property
    def label(self) -> str:
        """Label of the layer: the name of the activation, for example "relu"."""
        return self.activation

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        return input_shape

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns the size of the input that an output corner needs; see `Layer.reads`."""
        return height, width

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies the activation to each element of `x`."""
        return ACTIVATIONS[self.activation](x)


class Dropout(Layer):
    """Dropout: in training, zeroes elements with probability `rate`, divides others by 1 - rate.

    A rate that is not a multiple of 1/256 is rounded to a multiple of 2^-16, or of 2^-32 if the
    first rounding error exceeds 1% of `rate` or of `1 - rate`. The dropout mask depends only on
    (seed, step, row of the global batch, index of the layer).
    """

    kind = "dropout"

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of a dropout must be in [0, 1), got {rate}")
        if rate > MAX_DROPOUT_RATE:
            raise ValueError(
                f"the rate of a dropout must be at most 1 - 2^-15, got {rate}: what is kept is "
                "multiplied by 1 / (1 - rate), which float16 must hold"
            )
        self.rate = rate

    @property
    def label(self) -> str:
        """Label of the layer, for example "dropout 0.5"."""
        return f"dropout {self.rate:g}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, which is the input shape; there are no variables."""
        self.features = math.prod(input_shape)
        self.stream = initializer.index
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies dropout; raises ValueError in training if `context.noise` is None."""
        if not context.training or self.rate == 0:
            return x
        if context.noise is None:
            raise ValueError(
                "dropout in training needs ForwardContext.noise, which is None: pass a StatelessRNG"
            )
        mask = context.noise.dropout(
            self.stream, tf.shape(x)[0], self.features, self.rate, context.dtype
        )
        return x * tf.reshape(mask, tf.shape(x))


def _image_shape(layer: Layer, shape: Shape, smallest: int, initializer: Initializer) -> Shape:
    """Returns `shape`; raises ValueError if its rank is not 3 or a side is below `smallest`."""
    name = f"{layer.label} (layer {initializer.index})"
    if len(shape) != 3:
        raise ValueError(
            f"{name} takes images (height, width, channels), got shape {shape}:"
            " put it before Flatten()"
        )
    height, width, _ = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{name} needs an image of at least {smallest}x{smallest}, got {height}x{width}:"
            " use larger images (--image_size) or a network for any size (--model=mlp)"
        )
    return shape


def _at_least_one(what: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}")
    return value


def _one_of(what, value, known):
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(str, known))}, got {value!r}")
    return value
