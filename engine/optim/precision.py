"""Precision policies, and dynamic loss scaling for the small range of float16.

The loss is multiplied by the loss scale, and the gradients are divided by it after the all-reduce
(Micikevicius et al. 2018, "Mixed precision training"). Neither rounds: the scale is a power of 2.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


def compute_dtype(policy: str) -> tf.DType:
    """Returns the compute dtype of a precision policy: bfloat16 for "mixed_bfloat16"."""
    return tf.as_dtype(policy.removeprefix("mixed_"))


class LossScaleState(NamedTuple):
    """The loss scale and a counter of finite steps, as tensors carried by a `tf.while_loop`."""

    value: tf.Tensor  # float32 []
    finite_steps: tf.Tensor  # int64 [], consecutive finite steps since the last change


class LossScale(tf.Module):
    """Dynamic loss scale, which shrinks at non-finite steps and grows after several finite steps.

    If the initial loss scale is 1, the loss scale is constant.

    Args:
      policy: precision policy, such as "mixed_float16".
      initial: initial loss scale. 0 stands for 2^15 with the policy mixed_float16, else 1.
      growth_steps: consecutive finite steps after which the loss scale is multiplied by `factor`,
        unless it would overflow.
      factor: growth factor; the loss scale is divided by it at a non-finite step.
      floor: minimum of the loss scale; the initial loss scale if that is less.
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

    def read(self) -> tuple[LossScaleState, ...]:
        """Returns the values of the variables as a tuple of one `LossScaleState`.

        Returns an empty tuple if the loss scale is constant.
        """
        if not self.dynamic:
            return ()
        return (LossScaleState(self.value.read_value(), self.finite_steps.read_value()),)

    @staticmethod
    def value_of(scale: tuple[LossScaleState, ...]) -> tf.Tensor:
        """Returns the loss scale in a result of `read` or `after`, float32 []; 1 for ()."""
        return scale[0].value if scale else tf.constant(1.0)

    def after(
        self, scale: tuple[LossScaleState, ...], finite: tf.Tensor
    ) -> tuple[LossScaleState, ...]:
        """Returns the loss scale after a step, in the form that `read` returns.

        `scale` is the loss scale before the step; `finite`, bool [], is whether the step was
        finite.
        """
        return tuple(self._after(each, finite) for each in scale)

    def _after(self, scale: LossScaleState, finite: tf.Tensor) -> LossScaleState:
        run = scale.finite_steps + 1
        due = run >= self._growth_steps
        grown = tf.where(due, scale.value * self._factor, scale.value)
        grown = tf.where(tf.math.is_finite(grown), grown, scale.value)
        shrunk = tf.maximum(scale.value / self._factor, self._floor)
        return LossScaleState(tf.where(finite, grown, shrunk), tf.where(finite & ~due, run, 0))

    def write(self, scale: tuple[LossScaleState, ...]) -> None:
        """Assigns the scale to the variables; does nothing for an empty tuple."""
        for each in scale:
            self.value.assign(each.value)
            self.finite_steps.assign(each.finite_steps)
