"""Makes the statistics of a model again, such as those of batch norm, by a pass over a split.

After weights are averaged, the moving averages belong to none of the networks. As
`torch.optim.swa_utils.update_bn` does, the pass replaces each by the mean over all batches of the
value of one batch, which is what a moving average estimates. The mean is weighted by the weights of
the updates, so a partial batch counts by its examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.core.accumulation import Accumulation
from engine.core.augmentation import preprocessed
from engine.core.statistics import weighted_sums, zeros
from engine.core.steps_per_loop import StepsPerLoop, stopwatch
from engine.distributed.reduction import Tensors, of_micro_batch, reductions
from engine.models import properties
from engine.models.base import ForwardContext
from engine.models.stateless_random import StatelessRNG
from engine.runtime.scalars import as_int64
from engine.tasks.task import Task
from pipelines import Batch, Feed, opened, reason

_TOLERANCE = 1e-3  # by which a moving average may deviate from a linear function of its variable
_MAX_MOMENTUM = 0.9999  # of a moving average whose batch value can be derived from the new one


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class StatisticsPass:
    """A pass over a split in training mode, without updates of weights; see the module.

    The forward pass is that of training: layers normalize by the statistics of the global batch
    over all replicas, of each micro-batch or shard, and dropout draws the random numbers of the
    first steps of a run. So the result is a pure function of the weights and the feed, and it does
    not depend on the number of replicas, except for rounding.

    An update of a moving average without `batch` is moved by an unknown momentum m towards the
    value b of the batch, from v to m v + (1 - m) b. The first batch is computed with three values
    of v, which shows whether the update is of this form, and m; b follows with a relative error of
    about 1e-7 / (1 - m). A statistic of another form, such as a counter, becomes the mean of the
    values that are proposed for it.
    """

    strategy: tf.distribute.Strategy
    feed: Feed  # without augmentation
    model: tf.Module
    task: Task
    seed: int  # of the run
    dtype: tf.DType = tf.float32  # that layers compute in
    preprocess: Callable[[Any], Any] = lambda inputs: inputs  # decoded inputs to the model's inputs

    def __post_init__(self) -> None:
        self._statistics = properties.statistics(self.model)
        self._moved: set[int] = set()  # indices of statistics with an update without `batch`
        self._synchronise, self._reduce = reductions(self.feed.layout.shards)
        self._accumulation = Accumulation(
            self.strategy, self.feed, lambda: zeros(self._statistics), self._compute
        )
        self._compiled = tf.function(self._steps, autograph=False)

    def run(
        self,
        interrupted: Callable[[], bool] = lambda: False,
        advance: Callable[[int], object] = lambda steps: None,
    ) -> bool:
        """Assigns the new statistics to the variables of the model.

        Args:
          interrupted: called before each call of the graph; returns whether to stop.
          advance: called after each call of the graph with its number of steps.

        Returns:
          True; False if `interrupted` returned True, and the variables were not changed.

        Raises:
          ValueError: if a new value is not finite, or if the model or task is found invalid when
            the pass is traced.
          RuntimeError: if TensorFlow fails, or if the feed cannot read its examples.
        """
        if interrupted():
            return False
        before = [np.asarray(each.numpy(), np.float64) for each in self._statistics]
        first, _ = self._sums(0, 1)  # which also finds `_moved`
        momenta = self._momenta(before, _means(first, before))
        totals, step, end = np.zeros_like(first), 0, self.feed.steps_per_epoch
        steps_per_loop = StepsPerLoop(0)
        while step < end:
            if interrupted():
                return False
            started = stopwatch()
            sums, steps = self._sums(step, steps_per_loop.steps(end - step))
            steps_per_loop.took(steps, stopwatch() - started)
            totals += sums
            step += steps
            advance(steps)
        self._assign(
            old + (mean - old) / (1 - momentum)
            for old, mean, momentum in zip(before, _means(totals, before), momenta, strict=True)
        )
        return True

    def _momenta(self, before: Sequence[np.ndarray], first: Sequence[np.ndarray]) -> list[float]:
        """Returns the momentum of each moving average in `_moved`, 0 for other statistics.

        Args:
          before: values of the statistics, v.
          first: values that the first batch proposes for them.
        """
        momenta = [0.0] * len(before)
        if not self._moved:
            return momenta
        values, proposed = [], []
        try:
            for factor in (1, 2):
                values.append(
                    [
                        (old + factor * _reach(old) * (index in self._moved)).astype(np.float32)
                        for index, old in enumerate(before)
                    ]
                )
                self._assign(values[-1])
                proposed.append(_means(self._sums(0, 1)[0], before))
        finally:
            self._assign(before)
        for index in self._moved:
            with np.errstate(invalid="ignore"):  # a value of the first batch is not finite
                slopes = [
                    (new[index] - first[index]) / (value[index] - before[index])
                    for value, new in zip(values, proposed, strict=True)
                ]
                momenta[index] = _momentum(np.stack(slopes))
        return momenta

    def _assign(self, values: Iterable[np.ndarray]) -> None:
        """Assigns values to the statistics; raises ValueError if one is not finite."""
        for variable, value in zip(self._statistics, values, strict=True):
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{variable.name} is not finite after a pass over the training split with "
                    "these weights; give other ones, such as --weights=best"
                )
            variable.assign(np.asarray(value, np.float32))

    def _sums(self, step: int, steps: int) -> tuple[np.ndarray, int]:
        """Returns the `weighted_sums` over 1 to `steps` steps from `step` on, and their number.

        The sums are those of all statistics, flattened and concatenated, float64.
        """
        try:
            steps, given = opened(self.feed, step, steps)
            counts = (tf.constant(as_int64(each)) for each in (step, steps))
            return self._compiled(*counts, given).numpy(), steps
        except tf.errors.OpError as error:
            raise RuntimeError(
                f"the pass over the training split failed in batch {step}: {reason(error)}"
            ) from error

    def _compute(self, batch: Batch, step: tf.Tensor) -> Tensors:
        """Returns `weighted_sums` of the values of a micro-batch; called in replica context.

        The values are those of the micro-batch alone, or, in `_moved`, the proposed ones.
        """
        batch = preprocessed(batch, None, self.preprocess)
        forward = ForwardContext(
            training=True,
            mask=batch.mask,
            noise=StatelessRNG(self.seed, step, batch.row),  # L3
            dtype=self.dtype,
            all_reduce=of_micro_batch(self._synchronise),
        )
        self.task(self.model, batch, forward)
        moved = {id(each.variable) for each in forward.updates if each.batch is None}
        self._moved = {i for i, each in enumerate(self._statistics) if id(each) in moved}
        updates = [
            each if id(each.variable) in moved else each._replace(value=each.batch)
            for each in forward.updates
        ]
        return weighted_sums(self._statistics, updates)

    def _steps(self, start: tf.Tensor, steps: tf.Tensor, given: object) -> tf.Tensor:
        """Returns the sums over consecutive steps and all replicas, in one vector, float64.

        Args:
          start: index of the first step, int64 [].
          steps: number of steps, int64 [].
          given: input of the graph from `Feed.open`.
        """

        def body(step: tf.Tensor, totals: Tensors) -> tuple[tf.Tensor, Tensors]:
            sums = self._accumulation.total(self.feed.next(given), step, step)
            found = self.strategy.run(self._reduce, args=(sums,))
            local = [self.strategy.experimental_local_results(each)[0] for each in found]
            added = [
                total + tf.cast(each, tf.float64) for total, each in zip(totals, local, strict=True)
            ]
            return step + 1, added

        totals = [tf.cast(each, tf.float64) for each in zeros(self._statistics)]
        _, totals = tf.while_loop(
            lambda step, _: step < start + steps, body, [start, totals], parallel_iterations=1
        )
        return tf.concat([tf.reshape(each, [-1]) for each in totals], 0)


def _means(sums: np.ndarray, before: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the weighted mean of each statistic, or its value before if the weights add up to 0.

    Args:
      sums: result of `StatisticsPass._sums`, of the sums of the values and those of the weights.
      before: values of the statistics.
    """
    ends = np.cumsum([old.size for old in before])
    values, weights = np.split(sums, ends)[:-1], sums[ends[-1] :]
    return [
        value.reshape(old.shape) / weight if weight > 0 else old
        for value, weight, old in zip(values, weights, before, strict=True)
    ]


def _reach(value: np.ndarray) -> float:
    """Returns a power of 2, at least 1, that is not below the largest magnitude of a statistic."""
    return float(2 ** np.ceil(np.log2(np.abs(value).max(initial=1))))


def _momentum(slopes: np.ndarray) -> float:
    """Returns the momentum of a moving average; 0 if an update is not a moving average.

    Args:
      slopes: slopes of the update, elementwise, between the value of the statistic and each of
        several greater values, [values, ...].
    """
    momentum = float(np.median(slopes[-1]))
    moving = np.all(np.abs(slopes - momentum) <= _TOLERANCE) and 0 <= momentum <= _MAX_MOMENTUM
    return momentum if moving else 0.0
