"""A convolution that whitens the patches of its inputs, initialized from training data."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, image_shape


class Whitening(Layer):
    """A convolution whose outputs have a covariance near the identity, for a first layer.

    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2. The kernels are the
    eigenvectors of the covariance of the patches in training images, divided by the roots of their
    eigenvalues, and the negatives of these: `2 * size^2 * channels` filters of stride 1, without
    padding. They stay as they are; the bias, which starts at 0, is trained. The engine initializes
    the kernels from the first training examples; see `Sequential.initialize_from`.

    Args:
      size: height and width of a patch.
      epsilon: number that is added to the eigenvalues, for inputs of unit variance.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "whitening"

    def __init__(self, size: int = 2, epsilon: float = 5e-4):
        super().__init__()
        self.size = at_least_one("the size of a whitening", size)
        if not epsilon > 0:
            raise ValueError(f"the epsilon of a whitening must be above 0, got {epsilon}")
        self.epsilon = epsilon

    @property
    def label(self) -> str:
        """Label of the layer, for example "whitening 2x2"."""
        return f"{self.kind} {self.size}x{self.size}"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape.

        Raises:
          ValueError: if the inputs are not images of at least `size` pixels a side.
        """
        height, width, channels = image_shape(self, input_shape, self.size, initializer)
        filters = 2 * self.size**2 * channels
        shape = (self.size, self.size, channels, filters)
        self.kernel = initializer.frozen("kernel", shape)
        self.bias = initializer.zeros("bias", (filters,))
        return height - self.size + 1, width - self.size + 1, filters

    def reads(self, height: int, width: int) -> tuple[int, int]:
        """Returns how much of an input image a part of the output depends on; see `Layer.reads`."""
        return height + self.size - 1, width + self.size - 1

    def initialize_from(self, inputs: tf.Tensor) -> None:
        """Assigns the kernels.

        Args:
          inputs: training images, [n, height, width, channels] of a floating dtype.
        """
        images = inputs.numpy().astype(np.float64)
        patches = np.lib.stride_tricks.sliding_window_view(images, (self.size, self.size), (1, 2))
        patches = patches.transpose(0, 1, 2, 4, 5, 3)  # as the axes of the kernel
        rows = patches.reshape(-1, self.size**2 * images.shape[-1])
        values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
        values, vectors = values[::-1], vectors[:, ::-1]  # the largest first
        # An eigenvector has two signs: its largest element becomes positive.
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
        vectors = vectors * np.sign(largest) / np.sqrt(np.maximum(values, 0) + self.epsilon)
        kernel = np.concatenate([vectors, -vectors], 1).reshape(self.kernel.shape)
        self.kernel.assign(kernel.astype(np.float32))

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps images [rows, height, width, channels] to smaller images of `filters` channels."""
        kernel = tf.stop_gradient(tf.cast(self.kernel, context.dtype))
        x = tf.nn.conv2d(x, kernel, 1, "VALID")
        return tf.nn.bias_add(x, tf.cast(self.bias, context.dtype))
