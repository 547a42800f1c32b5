"""Precision policies and dynamic loss scaling.

Weights, slots, the EMA of the weights, losses, norms, sums and the statistics of batch norm are
always float32. Layers compute in the dtype of the policy, to which they cast their weights.
Gradients in float16 underflow below 6e-8 and overflow above 65,504. So the loss is multiplied by
the loss scale before the gradients are computed, and the gradients are divided by it after the
all-reduce (Micikevicius et al. 2018, "Mixed precision training"). Loss scales are powers of 2, so
that neither operation rounds.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_COMPUTED_IN = {
    "float32": tf.float32,
    "mixed_bfloat16": tf.bfloat16,
    "mixed_float16": tf.float16,
}
_FLOAT16_SCALE = 2.0**15


def compute_dtype(policy: str) -> tf.DType:
    """Returns the compute dtype of the layers under the named precision policy."""
    return _COMPUTED_IN[policy]


class Scale(NamedTuple):
    """The loss scale and its count of finite steps, as loop variables."""

    value: tf.Tensor  # float32 []
    finite_steps: tf.Tensor  # int64 [], consecutive finite steps since the last change


class LossScale(tf.Module):
    """Loss scale: shrinks at a bad step, grows after consecutive finite steps.

    Args:
      policy: name of a precision policy.
      initial: initial scale; 0: 2^15 for mixed_float16, else 1. An initial scale of 1 is constant.
      growth_steps: number of consecutive finite steps after which the scale grows.
      factor: factor by which the scale grows or shrinks, a power of 2.
      floor: minimum of the scale, or `initial` if that is lower.
    """

    def __init__(
        self,
        policy: str = "float32",
        initial: float = 0.0,
        growth_steps: int = 2000,
        factor: float = 2.0,
        floor: float = 1.0,
    ) -> None:
        super().__init__(name="loss_scale")
        initial = initial or (_FLOAT16_SCALE if policy == "mixed_float16" else 1.0)
        self.dynamic = initial != 1.0
        self.value = tf.Variable(initial, trainable=False, name="value")
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="finite_steps")
        self._growth_steps, self._factor = growth_steps, factor
        self._floor = min(floor, initial)

    def read(self) -> tuple[Scale, ...]:
        """Reads the variables; returns a tuple of one scale, empty if the scale is constant."""
        if not self.dynamic:
            return ()
        return (Scale(self.value.read_value(), self.finite_steps.read_value()),)

    @staticmethod
    def value_of(scale: tuple[Scale, ...]) -> tf.Tensor:
        """Returns the loss scale, float32 [], from the result of `read` or `after`."""
        return scale[0].value if scale else tf.constant(1.0)

    def after(self, scale: tuple[Scale, ...], finite: tf.Tensor) -> tuple[Scale, ...]:
        """Returns the scale after a step; `finite`, bool [], is True for a finite step."""
        return tuple(self._after(each, finite) for each in scale)

    def _after(self, scale: Scale, finite: tf.Tensor) -> Scale:
        run = scale.finite_steps + 1
        due = run >= self._growth_steps
        grown = tf.where(due, scale.value * self._factor, scale.value)
        grown = tf.where(tf.math.is_finite(grown), grown, scale.value)
        shrunk = tf.maximum(scale.value / self._factor, self._floor)
        return Scale(tf.where(finite, grown, shrunk), tf.where(finite & ~due, run, 0))

    def write(self, scale: tuple[Scale, ...]) -> None:
        """Assigns the scale to the variables; does nothing for an empty tuple."""
        for each in scale:
            self.value.assign(each.value)
            self.finite_steps.assign(each.finite_steps)
