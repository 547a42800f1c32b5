"""The guard: which steps went wrong, and which are left out because of it.

It sees each step once, in order, and decides by what the state remembers: so it decides the same
wherever calls of the graph, checkpoints and kills fall. A step that is left out keeps its number,
and with it its examples and its learning rate; it moves nothing.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.config import MOST_LEFT_OUT, RANKED, REMEMBERED, Guarding
from engine.numerics.scalars import real, whole

if TYPE_CHECKING:
    from engine.assembly import Parts
    from engine.state import Watch

_IN_A_ROW = 20  # with a dynamic loss scale, which halves at each of them
_HISTORY = 16  # losses without which no loss is a spike
_ROBUST = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
# What a deviation is at least, because that of sound losses vanishes as the loss does:
_OF_MEDIAN = 0.01
_OF_FALL = 0.1  # of the fall of the loss since the start
_OF_EXCESS = 0.25  # of the largest excess over the median that a sound step has had
_FEW = 32  # examples; in a smaller batch a few hard ones alone make its mean loss large


class Reason(enum.IntEnum):
    """Why a step is left out."""

    ASKED_FOR = 0
    NOT_FINITE = 1
    SPIKE = 2
    STEEP = 3

    @property
    def words(self) -> str:
        """For a person."""
        return (
            "asked for",
            "gradient not finite",
            "loss far above those before",
            "gradient far above those before",
        )[self]

    @property
    def moved(self) -> bool:
        """Whether the step has moved the weights before it was found."""
        return self in (Reason.SPIKE, Reason.STEEP)


class GuardError(RuntimeError):
    """More went wrong than a run may leave out: going on as before would not help."""


class Fault(NamedTuple):
    """A step that went wrong."""

    step: int
    why: Reason


class Guard:
    """Watches the steps of a run.

    Args:
      options: what is let pass.
      scaled: whether there is a dynamic loss scale, for which some bad steps are no fault.
      watch: what the state remembers; read anew by `load`.
      examples: in the training split, 1 or more.
      batch: examples in a full global batch, 1 or more; the last batch of an epoch may have fewer.
    """

    def __init__(
        self, options: Guarding, scaled: bool, watch: Watch, *, examples: int, batch: int
    ) -> None:
        self._options, self._watch = options, watch
        self._examples, self._batch = examples, min(batch, examples)
        in_a_row, bad = options.bad_steps_in_a_row, options.bad_steps
        self._most_in_a_row = in_a_row if in_a_row >= 0 else _IN_A_ROW * scaled
        self._most_bad = bad if bad >= 0 else (1 << 62) * scaled
        self._asked = [int(step) for step in options.leave_out.split(",") if step]
        self.load()

    def load(self) -> None:
        """Reads what the state remembers; call it when the state was restored."""
        steps, reasons = self._watch.left_out.numpy(), self._watch.why.numpy()
        self._bad, self._in_a_row = int(self._watch.bad), int(self._watch.in_a_row)
        losses = self._watch.losses.numpy()
        self._losses = list(losses[~np.isnan(losses)])
        norms = self._watch.norms.numpy()
        self._norms = sorted(norms[~np.isnan(norms)], reverse=True)
        self._start, self._excess = float(self._watch.start), float(self._watch.excess)
        self._found = {
            int(step): Reason(why) for step, why in zip(steps, reasons, strict=True) if step >= 0
        }
        self.left_out = dict.fromkeys(self._asked, Reason.ASKED_FOR) | self._found

    def until_left_out(self, step: int) -> int:
        """Steps from `step` to the next one that is left out; 0: that is this one."""
        return min((each - step for each in self.left_out if each >= step), default=1 << 62)

    def examine(
        self, step: int, taken: int, good: bool, losses: np.ndarray, norms: np.ndarray
    ) -> Fault | None:
        """Looks at steps that were taken, each once and in order.

        Args:
          step: the first of them.
          taken: how many; all but the last were finite.
          good: whether the last was.
          losses: float [taken], of each; empty where spikes are not looked for.
          norms: float [taken], of each gradient before clipping; empty where losses are.
        """
        finite = len(losses) if good else max(len(losses) - 1, 0)
        for place in range(finite):
            loss, norm = float(losses[place]), float(norms[place])
            if self._options.spike:
                if self._is_spike(step + place, loss):
                    return Fault(step + place, Reason.SPIKE)
                if self._is_steep(step + place, norm):
                    return Fault(step + place, Reason.STEEP)
            self._losses = [*self._losses, loss][-REMEMBERED:]
        if finite:
            self._watch.losses.assign(_padded(self._losses, REMEMBERED))
            self._watch.norms.assign(_padded(self._norms, RANKED))
            self._watch.start.assign(real(self._start))
            self._watch.excess.assign(real(self._excess))
        before = self._bad, self._in_a_row
        self._in_a_row = 0 if good else self._in_a_row * (taken == 1) + 1
        self._bad += not good
        if self._in_a_row > self._most_in_a_row or self._bad > self._most_bad:
            return Fault(step + taken - 1, Reason.NOT_FINITE)
        if (self._bad, self._in_a_row) != before:
            self._watch.bad.assign(whole(self._bad))
            self._watch.in_a_row.assign(whole(self._in_a_row))
        return None

    def leave_out(self, fault: Fault) -> None:
        """Has a step left out from now on; call it after `load`, the state having gone back.

        Raises:
          GuardError: when it is one too many.
        """
        count = len(self._found)
        if count >= min(self._options.most_left_out, MOST_LEFT_OUT):
            steps = ", ".join(f"{step:,}" for step in sorted([*self._found, fault.step]))
            raise GuardError(
                f"step {fault.step:,} went wrong ({fault.why.words}), one more than "
                f"--most_left_out={self._options.most_left_out} allows: steps {steps}; "
                "left_out.jsonl has their examples. Mend the data, or train more slowly in "
                "another --run_dir, or raise --most_left_out and go on"
            )
        self._watch.left_out.scatter_nd_update([[count]], [fault.step])
        self._watch.why.scatter_nd_update([[count]], [int(fault.why)])
        self.load()

    def _is_spike(self, step: int, loss: float) -> bool:
        """Judges a step by the losses of sound steps before it; notes the excess of a sound one.

        The excess of a loss over the median is measured in robust standard deviations of the
        losses before it. Sound losses near 0 hardly deviate and are skewed, so that a deviation is
        taken to be no less than a part of what the loss has fallen by since the start, and of the
        largest excess that was sound. Multiplying all losses by a positive factor changes nothing.

        A batch that went wrong has a high loss at once. Where the losses before it rise, the
        weights are to blame: a high learning rate makes them swing, several times as far in each
        step, and come back. So the excess of the step before is a deviation, too.

        The standard error of a mean over n examples grows as 1 / sqrt(n), and what a single hard
        example adds to it as 1 / n: a batch that is smaller than the others, or smaller than
        `_FEW`, is allowed as much more.
        """
        if len(self._losses) < _HISTORY:
            return False
        if math.isnan(self._start):
            # The second highest: one step that went wrong, or one low loss, does not decide it.
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
        """Judges a step by the gradients of all sound steps before it; ranks that of a sound one.

        A batch that went wrong may have a low loss by chance, and yet move the weights far, so that
        the loss of the steps after it is high. The second largest norm is the measure: one step
        that went wrong before there was a history does not decide it.
        """
        norm /= self._allowance(step)
        if len(self._norms) == RANKED and norm > self._options.spike * self._norms[1]:
            return True
        self._norms = sorted([*self._norms, norm], reverse=True)[:RANKED]
        return False

    def _allowance(self, step: int) -> float:
        """How much further a step of so many examples may deviate than one of a full batch."""
        place = step % -(-self._examples // self._batch)
        examples = min(self._batch, self._examples - place * self._batch)
        return max((self._batch / examples) ** 0.5, _FEW / examples)


def _padded(values: list[float], size: int) -> np.ndarray:
    """Those values and then nan, float64 [size]."""
    return np.array([*values, *[np.nan] * (size - len(values))])


def guard_of(parts: Parts) -> Guard:
    """Returns the guard of a run, over its state."""
    return Guard(
        parts.config.guarding,
        parts.state.loss_scale.dynamic,
        parts.state.watch,
        examples=parts.feeds.training.examples,
        batch=parts.config.training.global_batch_size,
    )
