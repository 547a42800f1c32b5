"""The bad-step detector: finds bad steps, and keeps the list of steps to skip.

It checks each step once, in order, and decides from the state. So its decisions do not depend on
where calls of the graph, checkpoints and kills fall. A skipped step keeps its number, and with it
its examples and its learning rate; it does not update the weights.

A step that is finite and no spike is called *normal* below.
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

_IN_A_ROW = 20  # non-finite steps allowed with a dynamic loss scale, which each of them shrinks
_HISTORY = 16  # fewest earlier losses that a spike is detected with
_ROBUST = 1.4826  # normal distribution: standard deviation over median absolute deviation
# Lower bounds of a deviation, because that of normal steps vanishes as the loss does:
_OF_MEDIAN = 0.01  # of the median
_OF_FALL = 0.1  # of the fall of the loss since the start
_OF_EXCESS = 0.25  # of the largest excess of a normal step over the median
_FEW = 32  # examples; in a smaller batch, a few hard ones alone make the mean loss large


class BadStepReason(enum.IntEnum):
    """Why a step is skipped."""

    ASKED_FOR = 0
    NOT_FINITE = 1
    SPIKE = 2
    STEEP = 3

    @property
    def words(self) -> str:
        """The reason in words, for the user."""
        return (
            "asked for",
            "gradient not finite",
            "loss far above those before",
            "gradient far above those before",
        )[self]

    @property
    def moved(self) -> bool:
        """Whether the step had updated the weights before it was found."""
        return self in (BadStepReason.SPIKE, BadStepReason.STEEP)


class TooManyBadStepsError(RuntimeError):
    """More bad steps than a run may skip: to resume without a change would not help."""


class BadStep(NamedTuple):
    """A step to skip, and the reason."""

    step: int
    why: BadStepReason


class BadStepDetector:
    """Checks the steps of a run.

    Args:
      options: what to detect, and what to tolerate.
      scaled: whether there is a dynamic loss scale, with which some bad steps are expected.
      watch: detector state, which `load` reads.
      examples: number of examples in the training split, 1 or more.
      batch: examples in a full global batch, 1 or more; the last batch of an epoch may have fewer.
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
        self._asked = [int(step) for step in options.leave_out.split(",") if step]
        self.load()

    def load(self) -> None:
        """Reads the detector state; call it after the state was restored."""
        steps, reasons = self._watch.skipped.numpy(), self._watch.reasons.numpy()
        self._bad, self._in_a_row = int(self._watch.tolerated), int(self._watch.in_a_row)
        losses = self._watch.losses.numpy()
        self._losses = list(losses[~np.isnan(losses)])
        norms = self._watch.norms.numpy()
        self._norms = sorted(norms[~np.isnan(norms)], reverse=True)
        self._start, self._excess = float(self._watch.initial_loss), float(self._watch.max_excess)
        self._found = {
            int(step): BadStepReason(why)
            for step, why in zip(steps, reasons, strict=True)
            if step >= 0
        }
        self.left_out = dict.fromkeys(self._asked, BadStepReason.ASKED_FOR) | self._found

    def steps_until_skipped(self, step: int) -> int:
        """Returns the number of steps from `step` to the next skipped one; 0: `step` is skipped."""
        return min((each - step for each in self.left_out if each >= step), default=1 << 62)

    def examine(
        self, step: int, taken: int, finite: bool, losses: np.ndarray, norms: np.ndarray
    ) -> BadStep | None:
        """Checks steps that were taken, each once and in order.

        Args:
          step: number of the first step.
          taken: number of steps; all but the last were finite.
          finite: whether the last step was finite.
          losses: loss of each step, float [taken]; empty if spikes are not detected.
          norms: gradient norm of each step before clipping, float [taken]; empty if losses is.

        Returns:
          The first bad step that must be rolled back; None if there is none.
        """
        sound = len(losses) if finite else max(len(losses) - 1, 0)
        for place in range(sound):
            loss, norm = float(losses[place]), float(norms[place])
            if self._options.spike:
                if self._is_spike(step + place, loss):
                    return BadStep(step + place, BadStepReason.SPIKE)
                if self._is_steep(step + place, norm):
                    return BadStep(step + place, BadStepReason.STEEP)
            self._losses = [*self._losses, loss][-SPIKE_WINDOW:]
        if sound:
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
        """Skips a step from now on; call it after the state was rolled back and `load` was called.

        Raises:
          TooManyBadStepsError: if the run may not skip another step.
        """
        count = len(self._found)
        if count >= min(self._options.most_left_out, MAX_SKIPPED_STEPS):
            steps = ", ".join(f"{step:,}" for step in sorted([*self._found, bad_step.step]))
            raise TooManyBadStepsError(
                f"step {bad_step.step:,} is a bad step ({bad_step.why.words}), one more than "
                f"--most_left_out={self._options.most_left_out} allows: steps {steps}; "
                "left_out.jsonl has their examples. Fix the data, or lower the learning rate in "
                "another --run_dir, or raise --most_left_out and resume"
            )
        self._watch.skipped.scatter_nd_update([[count]], [bad_step.step])
        self._watch.reasons.scatter_nd_update([[count]], [int(bad_step.why)])
        self.load()

    def _is_spike(self, step: int, loss: float) -> bool:
        """Compares a loss with those of normal steps before it; records the excess of a normal one.

        The excess of a loss over the median is measured in robust standard deviations of the losses
        before it. Losses of normal steps near 0 hardly deviate and are skewed. So a deviation is at
        least a fraction of the fall of the loss since the start, and of the largest normal excess.
        Multiplying all losses by a positive factor changes nothing.

        A bad batch has a high loss at once. Where the losses before it rise, the weights are the
        cause: a high learning rate makes them oscillate, several times as far in each step, and
        recover. So the excess of the step before counts as a deviation, too.

        The standard error of a mean over n examples grows as 1 / sqrt(n), and the contribution of a
        single hard example as 1 / n. A batch that is smaller than the others, or smaller than
        `_FEW`, may deviate by as much more.
        """
        if len(self._losses) < _HISTORY:
            return False
        if math.isnan(self._start):
            # The second highest, so that one bad step, or one low loss, does not decide.
            self._start = sorted(self._losses[:_HISTORY])[-2]
        middle = float(np.median(self._losses))
        deviation = max(
            _ROBUST * float(np.median(np.abs(np.subtract(self._losses, middle)))),
            _OF_MEDIAN * abs(middle),
            _OF_FALL * (self._start - middle),
            _OF_EXCESS * self._excess,
            self._losses[-1] - middle,
        )
        excess = (loss - middle) / self._allowance(step)
        if excess > self._options.spike * deviation:
            return True
        self._excess = max(self._excess, excess)
        return False

    def _is_steep(self, step: int, norm: float) -> bool:
        """Compares a gradient norm with all normal ones before it; ranks a normal one.

        A bad batch may have a low loss by chance and still change the weights so much that the loss
        of later steps is high. The reference is the second largest norm, so that one bad step
        before there was a history does not decide.
        """
        norm /= self._allowance(step)
        if len(self._norms) == LARGEST_NORMS and norm > self._options.spike * self._norms[1]:
            return True
        self._norms = sorted([*self._norms, norm], reverse=True)[:LARGEST_NORMS]
        return False

    def _allowance(self, step: int) -> float:
        """Returns the factor by which a step's batch may deviate more than a full batch."""
        place = step % -(-self._examples // self._batch)
        examples = min(self._batch, self._examples - place * self._batch)
        return max((self._batch / examples) ** 0.5, _FEW / examples)


def _padded(values: list[float], size: int) -> np.ndarray:
    """Returns the values, padded with nan, float64 [size]."""
    return np.array([*values, *[np.nan] * (size - len(values))])


def bad_step_detector(parts: Parts) -> BadStepDetector:
    """Returns the bad-step detector of a run, on its state."""
    return BadStepDetector(
        parts.config.bad_steps,
        parts.state.loss_scale.dynamic,
        parts.state.bad_steps,
        examples=parts.feeds.training.examples,
        batch=parts.config.training.global_batch_size,
    )
