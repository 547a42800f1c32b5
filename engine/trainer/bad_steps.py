"""Detects bad steps (not finite, or a spike of loss or gradient norm); records the steps to skip.

A skipped step keeps its number, its examples and its learning rate, but does not update the
weights. Below, a *normal* step is one that is finite and not a spike.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.core.options import LARGEST_NORMS, MAX_SKIPPED_STEPS, SPIKE_WINDOW
from engine.runtime.scalars import as_float64, as_int64
from engine.trainer.options import BadStepOptions

if TYPE_CHECKING:
    from engine.assembly.parts import Parts
    from engine.core.state import BadStepState

_IN_A_ROW = 20  # consecutive non-finite steps tolerated; each reduces the dynamic loss scale
_HISTORY = 16  # minimum number of earlier losses for spike detection
_ROBUST = 1.4826  # standard deviation / median absolute deviation of a normal distribution
# Lower bounds of the deviation of losses, which tends to 0 as the loss does, as fractions:
_OF_MEDIAN = 0.01  # of the median
_OF_FALL = 0.1  # of the decrease of the loss since the start
_OF_EXCESS = 0.25  # of the largest excess of a normal step over the median
_FEW = 32  # examples; in a smaller batch, a few hard examples can dominate the mean loss


class BadStepReason(enum.IntEnum):
    """The reason for skipping a step."""

    ASKED_FOR = 0  # by --leave_out
    NOT_FINITE = 1
    SPIKE = 2  # of the loss
    STEEP = 3  # spike of the gradient norm

    @property
    def label(self) -> str:
        """Text of the reason, for messages."""
        return (
            "asked for",
            "gradient not finite",
            "loss far above those before",
            "gradient far above those before",
        )[self]

    @property
    def updated_weights(self) -> bool:
        """Whether a step that is bad for this reason had updated the weights when detected."""
        return self in (BadStepReason.SPIKE, BadStepReason.STEEP)


class TooManyBadStepsError(RuntimeError):
    """Raised when a run has more bad steps than it may skip; resuming it unchanged fails again."""


class BadStep(NamedTuple):
    """A step to skip, numbered from 0, and the reason for skipping it."""

    step: int
    reason: BadStepReason


class BadStepDetector:
    """Detector of bad steps: non-finite steps, loss spikes and gradient-norm spikes.

    A step is non-finite if a gradient, a moving statistic or a metric sum is nan or infinite. The
    detector checks each step once, in order, and its state is part of the training state. So its
    decisions depend neither on the number of steps per call of the graph nor on restarts.

    Args:
      options: options of the detection.
      scaled: whether the loss scale is dynamic, so that some non-finite steps are expected.
      watch: state of the detector.
      examples: number of examples in the training split.
      batch: number of examples in a full global batch.

    Attributes:
      left_out: steps to skip, as a dict {step: reason}: the detected bad steps and those that
        `--leave_out` names.
    """

    def __init__(
        self,
        options: BadStepOptions,
        scaled: bool,
        watch: BadStepState,
        *,
        examples: int,
        batch: int,
    ) -> None:
        self._options, self._watch = options, watch
        self._examples, self._batch = examples, min(batch, examples)
        in_a_row, bad = options.bad_steps_in_a_row, options.bad_steps
        self._most_in_a_row = in_a_row if in_a_row >= 0 else _IN_A_ROW * scaled
        self._most_bad = bad if bad >= 0 else (1 << 62) * scaled
        self.load()

    def load(self) -> None:
        """Reads the detector's state; must be called after the training state is restored."""
        self._bad, self._in_a_row = int(self._watch.tolerated), int(self._watch.in_a_row)
        losses = self._watch.losses.numpy()
        self._losses = list(losses[~np.isnan(losses)])
        norms = self._watch.norms.numpy()
        self._norms = sorted(norms[~np.isnan(norms)], reverse=True)
        self._start, self._excess = float(self._watch.initial_loss), float(self._watch.max_excess)
        skipped = zip(self._watch.skipped.numpy(), self._watch.reasons.numpy(), strict=True)
        self._detected = {int(step): BadStepReason(why) for step, why in skipped if step >= 0}
        requested = [int(step) for step in self._options.leave_out.split(",") if step]
        self.left_out = dict.fromkeys(requested, BadStepReason.ASKED_FOR) | self._detected

    def steps_until_skipped(self, step: int) -> int:
        """Returns the number of steps from `step` to the next step to skip.

        The result is 0 if that is `step` itself, and 1 << 62 if no step from `step` on is skipped.
        """
        return min((each - step for each in self.left_out if each >= step), default=1 << 62)

    def examine(
        self, step: int, taken: int, finite: bool, losses: np.ndarray, norms: np.ndarray
    ) -> BadStep | None:
        """Checks the steps of one call of the graph, and updates the detector's state.

        Each step must be checked once, in order.

        Args:
          step: number of the first step, from 0.
          taken: number of steps; all but the last were finite.
          finite: whether the last step was finite.
          losses: loss of each step, float32 [taken]; empty if spikes are not detected.
          norms: gradient norm of each step before clipping, float32 [taken]; empty if `losses` is.

        Returns:
          The first bad step, which must be rolled back; None if there is none, or if the last step
          is not finite but tolerated.
        """
        finite_losses = losses[: taken if finite else taken - 1].tolist()
        for index, loss in enumerate(finite_losses):
            number, norm = step + index, float(norms[index])
            if self._options.spike:
                if self._is_spike(number, loss):
                    return BadStep(number, BadStepReason.SPIKE)
                if self._is_steep(number, norm):
                    return BadStep(number, BadStepReason.STEEP)
            self._losses = [*self._losses, loss][-SPIKE_WINDOW:]
        if finite_losses:
            self._watch.losses.assign(_padded(self._losses, SPIKE_WINDOW))
            self._watch.norms.assign(_padded(self._norms, LARGEST_NORMS))
            self._watch.initial_loss.assign(as_float64(self._start))
            self._watch.max_excess.assign(as_float64(self._excess))
        before = self._bad, self._in_a_row
        self._in_a_row = 0 if finite else self._in_a_row * (taken == 1) + 1
        self._bad += not finite
        if self._in_a_row > self._most_in_a_row or self._bad > self._most_bad:
            return BadStep(step + taken - 1, BadStepReason.NOT_FINITE)
        if (self._bad, self._in_a_row) != before:
            self._watch.tolerated.assign(as_int64(self._bad))
            self._watch.in_a_row.assign(as_int64(self._in_a_row))
        return None

    def leave_out(self, bad_step: BadStep) -> None:
        """Adds a bad step to the steps to skip.

        The training state must have been rolled back, and `load` called, before.

        Raises:
          TooManyBadStepsError: if the run may not skip one more bad step.
        """
        count = len(self._detected)
        if count >= min(self._options.most_left_out, MAX_SKIPPED_STEPS):
            bad = sorted([*self._detected, bad_step.step])
            if bad == list(range(count + 1)):  # no step has updated the weights
                raise TooManyBadStepsError(
                    f"all steps from the first on are bad ({bad_step.reason.label}): the loss or "
                    "its gradient is nan or infinite at the initial weights; left_out.jsonl has "
                    "the losses. Mend the model, the task or the data"
                )
            steps = ", ".join(f"{step:,}" for step in bad)
            raise TooManyBadStepsError(
                f"step {bad_step.step:,} is a bad step ({bad_step.reason.label}), one more than "
                f"--most_left_out={self._options.most_left_out} allows: steps {steps}; "
                "left_out.jsonl has their examples. Fix the data, or lower the learning rate in "
                "another --run_dir, or raise --most_left_out and resume"
            )
        self._watch.skipped.scatter_nd_update([[count]], [bad_step.step])
        self._watch.reasons.scatter_nd_update([[count]], [int(bad_step.reason)])
        self.load()

    def _is_spike(self, step: int, loss: float) -> bool:
        """Returns whether a loss is a spike; if not, records its excess over the median.

        The first `_HISTORY` losses are not checked. The excess of a loss over the median of the
        losses before it is measured in robust standard deviations. Near 0, losses of normal steps
        hardly deviate and are skewed. So the deviation is at least a fraction of the median, of the
        decrease of the loss since the start, and of the largest excess of a normal step. A constant
        factor of all losses changes nothing.

        A bad batch raises the loss in a single step. If the losses before already rise, the cause
        is the weights: with a high learning rate, weights can oscillate with a growing amplitude
        and then recover. So the deviation is also at least the excess of the previous loss.
        """
        if len(self._losses) < _HISTORY:
            return False
        if math.isnan(self._start):
            # The second largest, so that neither one bad step nor one low loss determines it.
            self._start = sorted(self._losses[:_HISTORY])[-2]
        median = float(np.median(self._losses))
        deviation = max(
            _ROBUST * float(np.median(np.abs(np.subtract(self._losses, median)))),
            _OF_MEDIAN * abs(median),
            _OF_FALL * (self._start - median),
            _OF_EXCESS * self._excess,
            self._losses[-1] - median,
        )
        excess = (loss - median) / self._allowance(step)
        if excess > self._options.spike * deviation:
            return True
        self._excess = max(self._excess, excess)
        return False

    def _is_steep(self, step: int, norm: float) -> bool:
        """Returns whether a gradient norm is a spike; if not, updates the list of largest norms.

        A bad batch with a low loss by chance may still change the weights too much. The norm is
        compared with the second largest norm of the steps before, so that one bad step among the
        first `LARGEST_NORMS` steps, which are not checked, does not determine the bound.
        """
        norm /= self._allowance(step)
        if len(self._norms) == LARGEST_NORMS and norm > self._options.spike * self._norms[1]:
            return True
        self._norms = sorted([*self._norms, norm], reverse=True)[:LARGEST_NORMS]
        return False

    def _allowance(self, step: int) -> float:
        """Returns the factor, 1 or more, that raises the bounds of a step if its batch is small.

        The standard error of a mean over n examples is proportional to 1 / sqrt(n), and the
        contribution of a single hard example to 1 / n. So a batch of fewer examples than a full
        one, as the last one of an epoch may be, or of fewer than `_FEW`, may deviate more.
        """
        index = step % -(-self._examples // self._batch)
        examples = min(self._batch, self._examples - index * self._batch)
        return max((self._batch / examples) ** 0.5, _FEW / examples)


def _padded(values: list[float], size: int) -> np.ndarray:
    """Returns the values, followed by nan, float64 [size]."""
    return np.array([*values, *[np.nan] * (size - len(values))])


def bad_step_detector(parts: Parts) -> BadStepDetector:
    """Creates the bad-step detector of a run from its options and training state."""
    return BadStepDetector(
        parts.config.bad_steps,
        parts.state.loss_scale.dynamic,
        parts.state.bad_steps,
        examples=parts.feeds.training.examples,
        batch=parts.config.training.global_batch_size,
    )
