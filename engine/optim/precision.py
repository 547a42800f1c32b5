"""Precision policies, and dynamic loss scaling for the small range of float16.

The loss is multiplied by the loss scale, and the gradients are divided by it after the all-reduce
(Micikevicius et al. 2018, "Mixed precision training"). Neither rounds: it is a power of 2.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


def compute_dtype(policy: str) -> tf.DType:
    """Returns the compute dtype of the layers under the named precision policy."""
    return tf.as_dtype(policy.removeprefix("mixed_"))


class Scale(NamedTuple):
    """The loss scale and its count of finite steps, as loop variables."""

    value: tf.Tensor  # float32 []
    finite_steps: tf.Tensor  # int64 [], consecutive finite steps since the last change


class LossScale(tf.Module):
    """Loss scale: shrinks by `factor` at a bad step, grows by it after consecutive finite steps.

    An `initial` scale of 0 means 2^15 for mixed_float16, else 1; a scale of 1 is constant. If
    `initial` is below `floor`, it is the minimum.
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
        initial = initial or (2.0**15 if policy == "mixed_float16" else 1.0)
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
