"""The layers, on `tf.nn`. Images are [rows, height, width, channels]; vectors [rows, features].

Shapes in `build` leave out the rows. What a layer is given and must offer: `models/contract.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

from models.contract import Initializer, Layer, Pass, Shape
from models.noise import MOST_DROPPED

# Each must be non-decreasing: `Sequential` moves a max pool in front of them.
ACTIVATIONS = {None: tf.identity, "relu": tf.nn.relu}


class Convolution(Layer):
    """A two-dimensional convolution: Glorot-uniform kernel, zero bias.

    It has a bias, unless a batch norm comes next.
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
        super().__init__()
        self.filters = _at_least_one("the filters of a convolution", filters)
        self.size = _at_least_one("the size of a convolution", size)
        self.stride = _at_least_one("the stride of a convolution", stride)
        self.padding = _one_of("padding", padding, ("VALID", "SAME"))
        self.activation = _one_of("activation", activation, tuple(ACTIVATIONS))
        self.has_bias = True

    def expect_norm(self) -> None:
        """See `Layer`."""
        self.has_bias = self.activation is not None

    @property
    def label(self) -> str:
        """For example "convolution 3x3x32 relu"."""
        stride = f"stride {self.stride}" if self.stride > 1 else ""
        words = [f"convolution {self.size}x{self.size}x{self.filters}", stride, self.activation]
        return " ".join(word for word in words if word)

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """(height, width, channels) to (height', width', filters)."""
        smallest = self.size if self.padding == "VALID" else 1
        height, width, channels = _image_shape(self, input_shape, smallest, initializer)
        self.kernel = initializer.glorot_uniform(
            "kernel", (self.size, self.size, channels, self.filters)
        )
        if self.has_bias:
            self.bias = initializer.constant("bias", (self.filters,), 0.0)
        covered = self.size if self.padding == "VALID" else 1
        positions = [(side - covered) // self.stride + 1 for side in (height, width)]
        return (*positions, self.filters)

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, height, width, channels] to [rows, height', width', filters]."""
        return self.finish(self.convolve(x, call), call)

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """See `Layer`; where the edges are padded, they have to be the image's."""
        if self.padding == "SAME":
            return None
        return (height - 1) * self.stride + self.size, (width - 1) * self.stride + self.size

    def convolve(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """The first half of the layer: the convolution alone."""
        return tf.nn.conv2d(x, tf.cast(self.kernel, call.dtype), self.stride, self.padding)

    def finish(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """The second half: bias and activation, non-decreasing in each element of `x`."""
        if self.has_bias:
            x = tf.nn.bias_add(x, tf.cast(self.bias, call.dtype))
        return ACTIVATIONS[self.activation](x)


class MaxPool(Layer):
    """The largest value of each `size` x `size` tile; what does not fill a tile is left out."""

    kind = "max pool"

    def __init__(self, size: int = 2):
        super().__init__()
        self.size = _at_least_one("the size of a max pool", size)

    @property
    def label(self) -> str:
        """For example "max pool 2x2"."""
        return f"max pool {self.size}x{self.size}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """(height, width, channels) to (height // size, width // size, channels)."""
        height, width, channels = _image_shape(self, input_shape, self.size, initializer)
        return (height // self.size, width // self.size, channels)

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, height, width, channels] to [rows, height // size, width // size, channels]."""
        return tf.nn.max_pool2d(x, self.size, self.size, "VALID")

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """See `Layer`."""
        return height * self.size, width * self.size


class GlobalAveragePool(Layer):
    """The mean of each channel."""

    kind = "global average pool"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """(height, width, channels) to (channels,)."""
        return _image_shape(self, input_shape, 1, initializer)[-1:]

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, height, width, channels] to [rows, channels]."""
        # In float32: a sum of many half-precision numbers loses the small ones.
        return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]), call.dtype)


class Flatten(Layer):
    """Makes each row a vector, in row-major order."""

    kind = "flatten"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Any shape to (its number of elements,)."""
        self.features = math.prod(input_shape)
        return (self.features,)

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, ...] to [rows, features]."""
        return tf.reshape(x, [-1, self.features])


class Dense(Layer):
    """A fully connected layer: Glorot-uniform kernel, zero bias.

    It has a bias, unless a batch norm comes next.
    """

    kind = "dense"

    def __init__(self, units: int, activation: str | None = None):
        super().__init__()
        self.units = _at_least_one("the units of a dense layer", units)
        self.activation = _one_of("activation", activation, tuple(ACTIVATIONS))
        self.has_bias = True

    def expect_norm(self) -> None:
        """See `Layer`."""
        self.has_bias = self.activation is not None

    @property
    def label(self) -> str:
        """For example "dense relu"; its units are its output shape."""
        return f"dense {self.activation}" if self.activation else "dense"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """(features,) to (units,)."""
        if len(input_shape) != 1:
            raise ValueError(
                f"dense (layer {initializer.index}) takes vectors, got shape {input_shape}:"
                " put Flatten() or GlobalAveragePool() before it"
            )
        self.kernel = initializer.glorot_uniform("kernel", (input_shape[0], self.units))
        if self.has_bias:
            self.bias = initializer.constant("bias", (self.units,), 0.0)
        return (self.units,)

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, features] to [rows, units]."""
        x = tf.matmul(x, tf.cast(self.kernel, call.dtype))
        if self.has_bias:
            x = tf.nn.bias_add(x, tf.cast(self.bias, call.dtype))
        return ACTIVATIONS[self.activation](x)


class Activation(Layer):
    """An activation on its own, for example behind a batch norm."""

    kind = "activation"

    def __init__(self, activation: str):
        super().__init__()
        names = tuple(name for name in ACTIVATIONS if name)
        self.activation = _one_of("activation", activation, names)

    @property
    def label(self) -> str:
        """For example "relu"."""
        return self.activation

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Any shape to itself."""
        return input_shape

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """See `Layer`."""
        return height, width

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, ...] to the same shape."""
        return ACTIVATIONS[self.activation](x)


class Dropout(Layer):
    """In training, zeroes each element with probability `rate` and scales the rest to make up.

    A rate that is not a whole number of 256ths is rounded to a 65,536th, or finer where that is not
    within 1% of the rate and of what it keeps.

    What is dropped depends on (seed, step, row of the global batch, this layer's index) only (L3).
    """

    kind = "dropout"

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of a dropout must be in [0, 1), got {rate}")
        if rate > MOST_DROPPED:
            raise ValueError(
                f"the rate of a dropout must be at most 1 - 2^-15, got {rate}: what is kept is "
                "multiplied by 1 / (1 - rate), which float16 must hold"
            )
        self.rate = rate

    @property
    def label(self) -> str:
        """For example "dropout 0.5"."""
        return f"dropout {self.rate:g}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Any shape to itself."""
        self.features = math.prod(input_shape)
        self.stream = initializer.index
        return input_shape

    def __call__(self, x: tf.Tensor, call: Pass) -> tf.Tensor:
        """[rows, ...] to the same shape; raises ValueError in training without `call.noise`."""
        if not call.training or self.rate == 0:
            return x
        if call.noise is None:
            raise ValueError("a dropout in training draws from Pass.noise, which is None: give it")
        drawn = call.noise.dropout(
            self.stream, tf.shape(x)[0], self.features, self.rate, call.dtype
        )
        return x * tf.reshape(drawn, tf.shape(x))


def _image_shape(
    layer: Layer, input_shape: Shape, smallest: int, initializer: Initializer
) -> Shape:
    """Returns `input_shape`; refuses what is no image, or is less than `smallest` a side."""
    place = f"{layer.label} (layer {initializer.index})"
    if len(input_shape) != 3:
        raise ValueError(
            f"{place} takes images (height, width, channels), got shape {input_shape}:"
            " put it before Flatten()"
        )
    height, width, _ = input_shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{place} needs an image of at least {smallest}x{smallest}, got {height}x{width}:"
            " use larger images (--image_size) or a network for any size (--model=mlp)"
        )
    return input_shape


def _at_least_one(what: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}")
    return value


def _one_of(what, value, known):
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(str, known))}, got {value!r}")
    return value
