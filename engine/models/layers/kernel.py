"""Base class of layers that apply a kernel."""

from __future__ import annotations

import tensorflow as tf

from engine.models import row_sums
from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.fused_passes import column_sums, fused, fuses
from engine.models.layers.activation import ACTIVATIONS, NON_DECREASING, biased_gelu
from engine.models.layers.checks import one_of

INITIALIZERS = (
    *("glorot_uniform", "he_normal", "he_normal_fan_out", "normal", "truncated_normal", "zeros"),
    *("fan_in_uniform", "dirac"),
)
STDDEV = 0.02  # of "normal" and "truncated_normal": that of GPT-2, BERT and vision transformers


class WithKernel(Layer):
    """Base class of layers that apply a kernel, a bias and an optional activation, in this order.

    The bias is omitted without `use_bias`, or if a batch norm follows and the layer has no
    activation.

    `kernel_initializer` is "glorot_uniform", "he_normal" (fan in, truncated), "he_normal_fan_out",
    "normal" or "truncated_normal" of the standard deviation `kernel_stddev`, "zeros",
    "fan_in_uniform" or "dirac"; see `Initializer`.
    """

    def __init__(
        self,
        activation: str | None,
        use_bias: bool,
        kernel_initializer: str,
        kernel_stddev: float = STDDEV,
    ) -> None:
        super().__init__()
        self.activation = one_of("activation", activation, tuple(ACTIVATIONS))
        self.kernel_initializer = one_of("kernel_initializer", kernel_initializer, INITIALIZERS)
        if not kernel_stddev > 0:
            raise ValueError(f"kernel_stddev must be above 0, got {kernel_stddev}")
        self.kernel_stddev = kernel_stddev
        self.has_bias = use_bias

    @property
    def is_non_decreasing(self) -> bool:
        """Whether `finish` is non-decreasing in each element, so that a max pool may precede it."""
        return self.activation in NON_DECREASING

    def expect_norm(self) -> None:
        """Omits the bias if there is no activation; see `Layer.expect_norm`."""
        self.has_bias = self.has_bias and self.activation is not None

    def create_variables(
        self, kernel_shape: Shape, initializer: Initializer, groups: int = 1
    ) -> None:
        """Creates the kernel, of shape `kernel_shape`, and a bias of zeros if the layer has one.

        `kernel_shape` is [..., inputs of a group, outputs]; `groups` is the number of groups.
        """
        if self.kernel_initializer in ("glorot_uniform", "dirac"):
            create = getattr(initializer, self.kernel_initializer)
            self.kernel = create("kernel", kernel_shape, groups)
        elif self.kernel_initializer in ("normal", "truncated_normal"):
            create = getattr(initializer, self.kernel_initializer)
            self.kernel = create("kernel", kernel_shape, self.kernel_stddev)
        else:
            self.kernel = getattr(initializer, self.kernel_initializer)("kernel", kernel_shape)
        if self.has_bias:
            self.bias = initializer.constant("bias", kernel_shape[-1:], 0.0)

    def check_floating(self, x: tf.Tensor) -> None:
        """Raises ValueError if `x`, the input of the layer, is not floating-point."""
        if not x.dtype.is_floating:
            raise ValueError(
                f"{self.label} takes floating-point inputs, got {x.dtype.name}: give --scale=unit, "
                "or put an Embedding before it"
            )

    def finish(self, x: tf.Tensor, context: ForwardContext, fuse: bool = False) -> tf.Tensor:
        """Adds the bias, if there is one, to `x`, and applies the activation; keeps the shape.

        Args:
          x: result of the kernel, [..., outputs].
          context: context of the forward pass.
          fuse: whether the gradient of the bias is summed by XLA; see `fuses`.
        """
        if self.has_bias and self.activation == "gelu" and fuses(x, context):
            return fused(biased_gelu, x, tf.convert_to_tensor(self.bias))
        if self.has_bias and fuse:
            x = _add_summed_bias(x, tf.convert_to_tensor(self.bias))
        elif self.has_bias:
            x = add_bias(x, tf.convert_to_tensor(self.bias), context)
        return ACTIVATIONS[self.activation](x)


def add_bias(x: tf.Tensor, bias: tf.Tensor, context: ForwardContext) -> tf.Tensor:
    """Adds a float32 bias, [units], to `x`, [..., units] of the compute dtype.

    The gradient of the bias is summed in float32.
    """
    if row_sums.needed(context):
        return _add_bias(x, bias)
    return tf.nn.bias_add(x, tf.cast(bias, context.dtype))


@tf.custom_gradient
def _add_bias(x, bias):
    """Adds a float32 bias to `x` of 16 bits; its gradient is summed by `row_sums`."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream, row_sums.sum_over(upstream, upstream.shape.rank - 1)

    return tf.nn.bias_add(x, tf.cast(bias, x.dtype)), gradient


@tf.custom_gradient
def _add_summed_bias(x, bias):
    """Adds a float32 bias to `x`; its gradient is summed in float32, by XLA."""
    # An operation that TensorFlow joins with the product before it.
    return tf.nn.bias_add(x, tf.cast(bias, x.dtype)), lambda up: (up, column_sums(up))
