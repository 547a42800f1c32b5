"""Reduction of the learning rate when the monitored metric does not improve.

The rules are those of PyTorch's ReduceLROnPlateau with an absolute threshold, `--min_delta`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from engine.runtime.scalars import as_float64


class Plateau(tf.Module):
    """State of the plateau schedule: the factor of the learning rate, and counts of evaluations.

    The variables are part of the training state. They are created on the host, which updates them
    after an evaluation; the training loop reads `factor` once per call of its graph.

    Args:
      decay_rate: factor of a reduction, above 0 and below 1.
      patience: number of evaluations in a row without improvement that are tolerated; at one more,
        the learning rate is reduced.
      cooldown: number of evaluations after a reduction that are not counted.
      floor: smallest factor, from 0 to 1.

    Attributes:
      factor: factor of the peak learning rate, float64 []; 1 before the first reduction.
      reference: metric at the last improvement, float64 []; nan before the first improvement.
      wait: number of counted evaluations in a row without improvement, int64 [].
      resting: number of evaluations to come that are not counted, int64 [].
    """

    def __init__(self, decay_rate: float, patience: int, cooldown: int, floor: float) -> None:
        super().__init__(name="plateau")
        self._decay_rate, self._patience = decay_rate, patience
        self._cooldown, self._floor = cooldown, floor
        with tf.device("CPU:0"):
            self.factor = tf.Variable(1.0, trainable=False, name="factor", dtype=tf.float64)
            # The metric at the last improvement; nan: none yet.
            self.reference = tf.Variable(
                float("nan"), trainable=False, name="reference", dtype=tf.float64
            )
            self.wait = tf.Variable(0, trainable=False, name="wait", dtype=tf.int64)
            # Number of evaluations that are still not counted.
            self.resting = tf.Variable(0, trainable=False, name="resting", dtype=tf.int64)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the current factor, float64 []; `step` is not used."""
        return self.factor.read_value()

    def update(self, value: float, improves: Callable[[float, float], bool]) -> bool:
        """Updates the state with an evaluation; returns whether the factor has become smaller.

        The factor is multiplied by `decay_rate` if more than `patience` evaluations in a row did
        not improve, but does not fall below `floor`.

        Args:
          value: monitored metric of the evaluation.
          improves: function of (value, reference) that returns whether the value improves on the
            reference by enough; the reference is nan before the first improvement.
        """
        if improves(value, float(self.reference)):
            self.reference.assign(as_float64(value))
            self.wait.assign(0)
        else:
            self.wait.assign_add(1)
        if int(self.resting):
            self.resting.assign_sub(1)
            self.wait.assign(0)
        if int(self.wait) <= self._patience:
            return False
        before = float(self.factor)
        self.factor.assign(as_float64(max(before * self._decay_rate, self._floor)))
        self.resting.assign(self._cooldown)
        self.wait.assign(0)
        return float(self.factor) < before


def plateau(
    decay_rate: float, plateau_patience: int, plateau_cooldown: int, final_fraction: float
) -> Plateau:
    """Returns a `Plateau`, which reduces the learning rate when the monitored metric stalls.

    Args:
      decay_rate: factor of a reduction, above 0 and below 1.
      plateau_patience: number of evaluations in a row without improvement that are tolerated.
      plateau_cooldown: number of evaluations after a reduction that are not counted.
      final_fraction: smallest factor of the peak learning rate, from 0 to 1.
    """
    return Plateau(decay_rate, plateau_patience, plateau_cooldown, final_fraction)
