"""Pre-norm block of a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.attention import Attention
from engine.models.layers.checks import called
from engine.models.layers.composite import Composite, apply
from engine.models.layers.dense import Dense
from engine.models.layers.dropout import Dropout
from engine.models.layers.kernel import STDDEV
from engine.models.layers.normalization import LayerNorm


class TransformerBlock(Composite):
    """Pre-norm transformer block: x + attention(norm(x)), and to that, y + mlp(norm(y)).

    Xiong et al., 2020, "On layer normalization in the transformer architecture". The mlp has a
    hidden layer of `4 * units` units with the exact GELU.

    Args:
      units: number of units of the inputs and of the outputs.
      heads: number of heads of the attention.
      causal: as in `Attention`.
      dropout: dropout rate of the attention weights and of the outputs of attention and mlp.
      rotary: as in `Attention`.
      use_bias: whether dense layers and the attention have biases.
      key_bias: as in `Attention`.
      norm_offset: whether the layer norms have offsets.
      epsilon: number that the layer norms add to the variance.
      kernel_initializer: as in `Dense`, of all kernels.
      kernel_stddev: as in `Dense`, of all kernels.
      output_stddev: standard deviation for the kernels whose outputs are added to the inputs; None:
        `kernel_stddev`.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "transformer block"

    def __init__(
        self,
        units: int,
        heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        rotary: bool = False,
        use_bias: bool = True,
        key_bias: bool = False,
        norm_offset: bool = True,
        epsilon: float = 1e-5,
        kernel_initializer: str = "glorot_uniform",
        kernel_stddev: float = STDDEV,
        output_stddev: float | None = None,
    ):
        super().__init__()

        def dense(units: int, activation: str | None, stddev: float) -> Dense:
            return Dense(
                units,
                activation,
                use_bias=use_bias,
                kernel_initializer=kernel_initializer,
                kernel_stddev=stddev,
            )

        attention = Attention(
            heads,
            causal,
            dropout,
            rotary=rotary,
            use_bias=use_bias,
            key_bias=key_bias,
            kernel_initializer=kernel_initializer,
            kernel_stddev=kernel_stddev,
            output_stddev=output_stddev,
        )
        hidden = dense(4 * units, "gelu", kernel_stddev)
        output = dense(units, None, output_stddev or kernel_stddev)
        dropped = [[Dropout(dropout)] if dropout else [] for _ in range(2)]
        norms = [LayerNorm(epsilon, use_offset=norm_offset) for _ in range(2)]
        self.attention = [norms[0], attention, *dropped[0]]
        self.mlp = [norms[1], hidden, output, *dropped[1]]

    @property
    def label(self) -> str:
        """Label of the layer, for example "transformer block, causal attention of 4 heads"."""
        return f"{self.kind}, {self.attention[1].label}"

    def _lists(self) -> dict[str, Sequence[Layer]]:
        return {"attention": self.attention, "mlp": self.mlp}

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Builds the layers; returns the output shape, which is the input shape.

        Raises:
          ValueError: if the inputs are not sequences of `units` units, or the attention does not
            support them.
        """
        of_attention, of_mlp = self._build(input_shape, initializer)
        if of_mlp != of_attention:
            raise ValueError(
                f"{called(self, initializer)} adds {of_mlp[-1]} units to inputs of shape"
                f" {input_shape}: give as many units as the inputs have"
            )
        self._shape = input_shape
        return input_shape

    def __call__(
        self, x: tf.Tensor, context: ForwardContext, token: int | None = None
    ) -> tf.Tensor:
        """Maps [rows, tokens, units] to the same shape, or to [rows, units] of one token.

        The other tokens are then keys and values only; without dropout and rotary positions, what
        no output depends on is not computed.

        Args:
          x: the inputs.
          context: context of the forward pass.
          token: position of the token that is returned; None: all tokens are.
        """
        norm, attention = self.attention[:2]
        assert isinstance(attention, Attention)
        if token is not None and attention.takes_one_token(context):
            x, y = x[:, token], norm(x, context)
            x += attention(y, context, token)
            return x + apply(
                [each for each in self.mlp if not isinstance(each, Dropout)], x, context
            )
        rows, (tokens, units) = x.shape[0], self._shape
        sequences = [-1 if rows is None else rows, tokens, units]
        matrix = [-1 if rows is None else rows * tokens, units]
        # Added as matrices: XLA takes longer for the sums of a norm if it has to reshape the terms.
        x = tf.reshape(x, matrix)
        for layers in (self.attention, self.mlp):
            y = x
            for layer in layers:
                with tf.name_scope(layer.name):
                    if isinstance(layer, LayerNorm | Dense):
                        y = layer(y, context)
                    else:
                        y = tf.reshape(layer(tf.reshape(y, sequences), context), matrix)
            x += y
        x = tf.reshape(x, sequences)
        return x if token is None else x[:, token]
