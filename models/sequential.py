"""A network that is a list of layers, from images to logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from models.batch_norm import BatchNorm
from models.contract import Initializer, Layer, Pass, Shape
from models.layers import Convolution, Flatten, MaxPool


class Sequential(tf.Module):
    """A list of layers, built at once, that maps images to logits.

    Variables are created here, so inside the caller's `tf.distribute` scope if there is one.
    Weights are a pure function of (seed, index of the layer). `trainable_variables` are ordered
    by layer, and in a layer by the name of the attribute: the order that checkpoints rely on.

    name: a Python identifier.
    input_shape: (height, width, channels) of the images.
    Raises ValueError where the layers do not fit the images or one another, or do not end in a
    vector of logits.
    """

    def __init__(self, name: str, layers: Sequence[Layer], input_shape: Shape, seed: int):
        super().__init__(name)
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError(f"{name}: a layer is listed twice; make one object per layer")
        shapes = [tuple(int(side) for side in input_shape)]
        for index, layer in enumerate(layers):
            if isinstance(_next_that_computes(layers, index), BatchNorm):
                layer.expect_norm()
            initializer = Initializer(seed, index, layer.kind.replace(" ", "_"))
            shapes.append(layer.build(shapes[-1], initializer))
        if len(shapes[-1]) != 1:
            raise ValueError(
                f"{name} must end in a vector of logits, got shape {shapes[-1]}:"
                " end it with Flatten() and Dense(classes)"
            )
        self.layers = list(layers)
        self._shapes = shapes
        self._read = _read(self.layers, shapes)

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of the images."""
        return tuple(self._shapes[0])

    @property
    def output_shapes(self) -> list[Shape]:
        """The output shape of each layer."""
        return [tuple(shape) for shape in self._shapes[1:]]

    @property
    def classes(self) -> int:
        """The number of logits."""
        return self._shapes[-1][0]

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Meanwhile it computes what nothing depends on too, as its layers are written."""
        read, self._read = self._read, self.input_shape[:2]
        try:
            yield
        finally:
            self._read = read

    def __call__(self, images: tf.Tensor, call: Pass | None = None) -> tf.Tensor:
        """Maps images [rows, *input_shape] to logits float32 [rows, classes].

        uint8 images are divided by 255, here so that nobody can forget it; float images are
        taken as they are. Without `call` the network evaluates in float32.
        Raises ValueError for images of another shape.
        """
        if not images.shape[1:].is_compatible_with(self.input_shape):
            raise ValueError(
                f"{self.name} was built for images {self.input_shape}, got"
                f" {tuple(images.shape[1:])}: resize them, or build it for their shape"
            )
        call = call or Pass()
        if self._read != self.input_shape[:2]:
            height, width = self._read
            images = images[:, :height, :width]
        x = tf.cast(images, call.dtype)
        if images.dtype == tf.uint8:
            x = x / 255
        for index, layer, pool in pooled(self.layers):
            with tf.name_scope(f"{index}_{layer.name}"):
                if pool and call.training:
                    x = layer.finish(pool(layer.convolve(x, call), call), call)
                elif pool:  # no gradient in the way, TensorFlow makes one operation of the layer
                    x = pool(layer(x, call), call)
                else:
                    x = layer(x, call)
        return tf.cast(x, tf.float32)


def _read(layers: Sequence[Layer], shapes: Sequence[Shape]) -> Shape:
    """(rows, columns) of the images that the logits depend on.

    A pool leaves out what does not fill a tile, and a stride what it steps over at the end: what
    lies beyond is never seen, so it need not be computed, in any layer in front.
    """
    wanted: tuple[int, int] | None = None  # of what comes out of a layer; None: all
    for layer, shape in zip(reversed(layers), reversed(shapes[1:]), strict=True):
        if wanted is None and len(shape) == 3:
            wanted = shape[0], shape[1]
        wanted = layer.reads(*wanted) if wanted else None
    return wanted or tuple(shapes[0][:2])


def _next_that_computes(layers: Sequence[Layer], index: int) -> Layer | None:
    """The layer behind `index`, past those that only rearrange or choose among their inputs."""
    for layer in layers[index + 1 :]:
        if not isinstance(layer, Flatten | MaxPool):
            return layer
    return None


def pooled(layers: Sequence[Layer]) -> list[tuple[int, Layer, MaxPool | None]]:
    """Lists (index, layer, None) for each layer, but a convolution together with its max pool.

    The largest of some numbers stays the largest when all get the same bias and then the same
    non-decreasing activation, and rounding keeps their order too. So the pool may come first: the
    same function to the bit, and bias and activation touch a quarter of the elements. (Evaluation
    gains more from a convolution that adds the bias and takes the activation as it goes.)
    """
    stages: list[tuple[int, Layer, MaxPool | None]] = []
    for index, layer in enumerate(layers):
        if isinstance(layer, MaxPool) and index and isinstance(layers[index - 1], Convolution):
            stages[-1] = (index - 1, layers[index - 1], layer)
        else:
            stages.append((index, layer, None))
    return stages
