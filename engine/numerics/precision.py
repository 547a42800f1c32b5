"""In what numbers a step is computed, and the loss scale.

Weights, slots, averages, losses, norms and sums are float32 always, batch norm's statistics too;
layers compute in the policy's dtype, into which each casts its weights. Gradients of float16
vanish below 6e-8 and overflow above 65,504: the loss is multiplied by a scale before they are
taken, and they are divided by it after the reduction (Micikevicius et al. 2018, "Mixed precision
training"). Scales are powers of two, so that neither rounds.
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
    """What layers compute in, of a policy by name."""
    return _COMPUTED_IN[policy]


class Scale(NamedTuple):
    """The loss scale as it goes through the graph."""

    value: tf.Tensor  # float32 []
    good_steps: tf.Tensor  # int64 [], good ones in a row


class LossScale(tf.Module):
    """The factor on the loss; it halves at every bad step and doubles after many good ones.

    Args:
      policy: a policy by name.
      initial: scale at the start; 0: 2^15 for mixed_float16, else 1. A scale of 1 is constant.
      growth_steps: good steps in a row after which it grows.
      factor: by which it grows and shrinks, a power of 2.
      floor: it never shrinks below.
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
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")
        self._growth_steps, self._factor = growth_steps, factor
        self._floor = min(floor, initial)

    def read(self) -> tuple[Scale, ...]:
        """The state, in the graph; nothing where it is constant."""
        if not self.dynamic:
            return ()
        return (Scale(self.value.read_value(), self.good_steps.read_value()),)

    @staticmethod
    def value_of(scale: tuple[Scale, ...]) -> tf.Tensor:
        """The factor, float32 [], of what was read."""
        return scale[0].value if scale else tf.constant(1.0)

    def after(self, scale: tuple[Scale, ...], good: tf.Tensor) -> tuple[Scale, ...]:
        """What a step's verdict, bool [], makes of what was read."""
        return tuple(self._after(each, good) for each in scale)

    def _after(self, scale: Scale, good: tf.Tensor) -> Scale:
        run = scale.good_steps + 1
        due = run >= self._growth_steps
        grown = tf.where(due, scale.value * self._factor, scale.value)
        grown = tf.where(tf.math.is_finite(grown), grown, scale.value)
        shrunk = tf.maximum(scale.value / self._factor, self._floor)
        return Scale(tf.where(good, grown, shrunk), tf.where(good & ~due, run, 0))

    def write(self, scale: tuple[Scale, ...]) -> None:
        """Takes what was read and went on into the state."""
        for each in scale:
            self.value.assign(each.value)
            self.good_steps.assign(each.good_steps)
