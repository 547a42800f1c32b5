"""Convolution layer for images."""

from __future__ import annotations

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Shape
from engine.models.layers.checks import at_least_one, called, image_shape, one_of
from engine.models.layers.convolution_base import ConvolutionBase, Padding
from engine.models.layers.kernel import STDDEV


class Convolution(ConvolutionBase):
    """A 2-D convolution with `size` x `size` kernels and a zero-initialized bias.

    There is no bias without `use_bias`, or if a batch norm follows and the layer has no activation.

    Args:
      filters: number of output channels, a multiple of `groups`.
      size: height and width of the kernels.
      stride: distance between the windows.
      padding: "VALID" or "SAME", or the number of zeros on each side of the image, as in PyTorch.
        With a stride above 1, "SAME" can pad one side more than the other.
      activation: name of an activation, as in `Activation`; None: no activation.
      dilation: distance between the elements of a kernel in the image; 1 if `stride` is above 1.
      groups: number of equal parts into which channels and filters are divided; the filters of a
        part have the channels of the same part as inputs.
      use_bias: whether there is a bias.
      kernel_initializer: "glorot_uniform", "he_normal", "he_normal_fan_out", "normal",
        "truncated_normal", "zeros", "fan_in_uniform" or "dirac", an identity.
      kernel_stddev: standard deviation of "normal" and "truncated_normal".

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "convolution"

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        padding: Padding | int = "VALID",
        activation: str | None = None,
        *,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        kernel_stddev: float = STDDEV,
    ):
        super().__init__(
            size, stride, padding, activation, use_bias, kernel_initializer, kernel_stddev
        )
        if isinstance(padding, bool) or not isinstance(padding, int):
            self.padding = one_of("padding", padding, ("VALID", "SAME"))
        elif padding < 0:
            raise ValueError(f"the padding of a convolution must be 0 or more, got {padding}")
        self.filters = at_least_one("the filters of a convolution", filters)
        self.dilation = at_least_one("the dilation of a convolution", dilation)
        self.groups = at_least_one("the groups of a convolution", groups)
        if stride > 1 and dilation > 1:
            raise ValueError(
                f"a convolution has a stride or a dilation, got {stride} and {dilation}: make one 1"
            )
        if filters % groups:
            raise ValueError(
                f"the filters of a convolution must be a multiple of its groups, got {filters} and"
                f" {groups}"
            )

    @property
    def label(self) -> str:
        """Label of the layer, for example "convolution 3x3x32 relu"."""
        dilation = f"dilation {self.dilation}" if self.dilation > 1 else ""
        groups = f"{self.groups} groups" if self.groups > 1 else ""
        return self.format_label(f"{self.size}x{self.size}x{self.filters}", dilation, groups)

    @property
    def _extent(self) -> int:
        return (self.size - 1) * self.dilation + 1

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the variables; returns the output shape, (height, width, filters).

        Height and width are those of the output.

        Raises:
          ValueError: if the inputs are not images or, with their padding, are smaller than a
            kernel, or if `groups` does not divide the number of channels.
        """
        smallest = self.smallest_side(self._extent)
        height, width, channels = image_shape(self, input_shape, smallest, initializer)
        if channels % self.groups:
            raise ValueError(
                f"{called(self, initializer)} divides the channels by its groups, got {channels}"
                " channels: give groups that divide them"
            )
        kernel_shape = self.size, self.size, channels // self.groups, self.filters
        self.create_variables(kernel_shape, initializer, self.groups)
        positions = self.positions(height, width, self._extent)
        self._resolve(height, width, positions)
        return (*positions, self.filters)

    def _resolve(self, height: int, width: int, positions: Shape) -> None:
        """Sets the padding that TensorFlow's kernel gets, and the zeros added to the image before.

        A kernel with explicit padding is 25 times slower in bfloat16 on a CPU than one with "SAME";
        where "SAME" is another padding, the zeros are added in an operation of its own.
        """
        self._zeros, self._padding = None, self.padding
        if isinstance(self.padding, int):
            same = self.stride == 1 and 2 * self.padding == self._extent - 1
            self._padding = "SAME" if same else "VALID"
            if self.padding and not same:
                sides = zip((height, width), positions, strict=True)
                read = [(count - 1) * self.stride + self._extent - side for side, count in sides]
                after = [max(more - self.padding, 0) for more in read]  # what the last windows read
                self._zeros = [[0, 0], *([self.padding, more] for more in after), [0, 0]]

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies convolution, bias and activation; returns `[rows, *output_shape]`."""
        return self.finish(self.convolve(x, context), context)

    def reads(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns ((height - 1) * stride + extent, (width - 1) * stride + extent), if "VALID".

        The extent, (size - 1) * dilation + 1, is the side of a dilated kernel. With another
        padding, returns None; see `Layer.reads`.
        """
        if self.padding != "VALID":
            return None
        extent = self._extent
        return (height - 1) * self.stride + extent, (width - 1) * self.stride + extent

    def convolve(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns the convolution of `x` with the kernel, without bias and activation.

        The result is `[rows, *output_shape]` in `context.dtype`.

        Raises:
          ValueError: if `x` is not floating-point.
        """
        self.check_floating(x)
        kernel = tf.cast(self.kernel, context.dtype)
        if self._zeros:
            x = tf.pad(x, self._zeros)
        # Group by group: without oneDNN, TensorFlow has no kernel of a grouped convolution that its
        # graph optimizer fuses with a bias.
        outputs = [
            self._convolved(of_group, weights)
            for of_group, weights in zip(
                tf.split(x, self.groups, -1) if self.groups > 1 else [x],
                tf.split(kernel, self.groups, -1) if self.groups > 1 else [kernel],
                strict=True,
            )
        ]
        return tf.concat(outputs, -1) if self.groups > 1 else outputs[0]

    def _convolved(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.size == self.stride > 1 and self._padding == "VALID":
            return _of_patches(x, kernel)
        if self.dilation == 1:
            return tf.nn.conv2d(x, kernel, self.stride, self._padding)
        # By space-to-batch: without oneDNN, the gradient of a dilated convolution has no kernel.
        return tf.nn.with_space_to_batch(
            x,
            [self.dilation] * 2,
            self._padding,
            lambda rows, *_: tf.nn.conv2d(rows, kernel, 1, "VALID"),
            kernel.shape[:2],
        )


def _of_patches(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the convolution of the patches into which `kernel` divides images, as one product.

    The result is that of `tf.nn.conv2d` with a stride of the size of the kernel, and "VALID".
    """
    size, filters = kernel.shape[0], kernel.shape[3]
    height, width, channels = (x.shape[1] // size, x.shape[2] // size, x.shape[3])
    x = x[:, : height * size, : width * size]
    x = tf.reshape(x, [-1, height, size, width, size, channels])
    x = tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, size * size * channels])
    product = tf.matmul(x, tf.reshape(kernel, [-1, filters]))
    return tf.reshape(product, [-1, height, width, filters])
