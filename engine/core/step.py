"""One training step: gradients of micro-batches, all-reduce, finiteness check, clipping, update.

If a gradient, statistic or metric sum is not finite, no replica updates the model. The same step as
pseudocode: docs/concepts/step.md; the laws L1 to L3 in comments: docs/concepts/laws.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from engine.core import metrics, xla
from engine.core.augmentation import preprocessed
from engine.core.conditional import conditional_update, selected_update
from engine.core.statistics import weighted_sums
from engine.core.task_output import checked, code_of, masked_sums
from engine.distributed.reduction import Reduction, Tensors, all_reduce, of_micro_batch
from engine.models import properties
from engine.models.base import ForwardContext
from engine.models.stateless_random import StatelessRNG
from engine.optim import ema
from engine.optim.base import Optimizer
from engine.optim.clipping import Clip, multiplied
from engine.optim.schedules import WarmupSchedule
from engine.runtime.user_code import place
from engine.tasks.task import Task
from pipelines import Batch


class StepContext(NamedTuple):
    """Step counters, loss scale, factor of the learning rate and verdict before a training step."""

    step: tf.Tensor  # int64 [], number of earlier steps
    updates: tf.Tensor  # int64 [], number of earlier steps that updated the weights
    loss_scale: tf.Tensor  # float32 []
    factor: tf.Tensor | None = None  # of the learning rate, by the plateau schedule, float64 []
    finite: tf.Tensor | None = None  # bool []: if False, the step changes nothing; None: True


class StepResult(NamedTuple):
    """Finiteness and metric sums of a training step; the same on every replica."""

    finite: tf.Tensor  # bool []: whether all values were finite, so that weights were updated
    sums: tf.Tensor  # metrics.step_sums, of metrics.dtype


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Step:
    """A training step in two parts: the gradients of each micro-batch, and the update.

    Both parts are called in replica context, in the graph. XLA can compile the first, and of the
    second what follows the reduction over the replicas.
    """

    model: tf.Module
    task: Task
    optimizer: Optimizer  # with slots for the model's trainable variables
    schedule: WarmupSchedule
    seed: int
    dtype: tf.DType = tf.float32  # that layers compute in
    scaled: bool = False  # whether the loss scale may differ from 1
    clip: Clip | None = None
    average: tf.Module | None = None  # model with the same variables, which holds their EMA
    ema: float = 0.0  # decay of that EMA
    augment: Callable[[Batch], Batch] | None = None  # which includes `preprocess`
    preprocess: Callable[[Any], Any] = lambda inputs: inputs  # decoded inputs to the model's inputs
    synchronise: Reduction = all_reduce  # over the replicas that share a micro-batch: batch norm
    reduce: Reduction = all_reduce  # of gradients, statistics and metric sums
    compiled: bool = False  # whether XLA compiles `update`
    compiled_gradients: bool = False  # whether XLA compiles `compute_gradients`

    def __post_init__(self) -> None:
        self._clip = dataclasses.replace(self.clip or Clip(), compiled=self.compiled)
        self._weights = self.model.trainable_variables
        self._statistics = properties.statistics(self.model)
        moving = [*self._weights, *self._statistics]
        averaged = ema.averaged(self.average) if self.average is not None else ()
        self._updated = [*moving, *self.optimizer.variables, *averaged]

    def zero_accumulators(self) -> Tensors:
        """Returns zeros of the shapes and dtypes of the results of `compute_gradients`."""
        variables = [*self._weights, *self._statistics]
        shapes = [*(v.shape for v in variables), *([] for _ in self._statistics)]
        return [*map(tf.zeros, shapes), metrics.zeros(self.task.metrics)]

    def compute_gradients(
        self, batch: Batch, context: StepContext, has_padding: bool = True
    ) -> Tensors:
        """Returns the tensors to sum over micro-batches for `apply_gradients`.

        They are float32, except the metric sums of `metrics.dtype`, and in this order: the gradient
        of each trainable variable; the sum of weight * value over the `StatisticUpdate`s of each
        statistic, a non-trainable variable such as a moving mean; the sum of the weights of each
        statistic; `metrics.masked_sums`. The gradients are those of the sum of weight * loss over
        the rows, times the loss scale, and divided by the number of examples in the global batch.

        Args:
          batch: local micro-batch of decoded examples.
          context: counters and loss scale before the step.
          has_padding: whether rows of a batch can be padding; see `ForwardContext`.

        Raises:
          ValueError: if the loss does not depend on a trainable variable, if the output of the task
            or the arguments of a metric are invalid, if the model proposes a new value of a
            variable that is not a statistic, or if XLA cannot compile the gradients.
        """
        batch = preprocessed(batch, self.augment, self.preprocess)
        compiled = self.compiled_gradients
        # L3: randomness is a function of the step and of the row in the global batch.
        forward = ForwardContext(
            training=True,
            mask=batch.mask,
            noise=StatelessRNG(self.seed, context.step, batch.row, compiled=compiled),
            dtype=self.dtype,
            all_reduce=of_micro_batch(self.synchronise),
            compiled=compiled,
            has_padding=has_padding,
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            output = checked(self.task, self.task(self.model, batch, forward), batch)
            losses = tf.cast(output.losses, tf.float32)
            if forward.penalties:  # L1: added to each row, they count once in the mean
                losses += tf.add_n(forward.penalties)
        weight = batch.mask / batch.valid  # L1: `valid` counts the whole global batch
        self._weighted_loss = output.weights is not None
        if output.weights is not None:  # whose mean `apply_gradients` divides by
            weight *= tf.where(batch.mask > 0, tf.cast(output.weights, tf.float32), 0.0)
        if self.scaled:
            weight *= context.loss_scale
        gradients = tape.gradient(losses, self._weights, output_gradients=weight)
        self._refuse_unused(gradients)
        # The gradient of an embedding is a tf.IndexedSlices, whose rows are not in order.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if compiled:
            xla.refuse_max_pools()
        output = output._replace(losses=losses)
        sums = masked_sums(self.task, output, batch)
        return [*gradients, *weighted_sums(self._statistics, forward.updates), sums]

    def _refuse_unused(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """Raises ValueError if a gradient is None, that is, the loss does not depend on a weight.

        The message starts with a place in the user's code: that of the task if all gradients are
        None, otherwise that of the model. If only the task or only the model is user code, that
        place is named; if neither is, there is no place.

        Args:
          gradients: gradients of the trainable variables, in order.
        """
        without = {id(w) for g, w in zip(gradients, self._weights, strict=True) if g is None}
        named = properties.named_variables(self.model).items()
        unused = [name for name, variable in named if id(variable) in without]
        if not unused:
            return
        of_task, of_model = place(*code_of(self.task)), place(getattr(self.model, "made_by", None))
        every = len(unused) == len(gradients)
        where = (of_task or of_model) if every else (of_model or of_task)
        raise ValueError(f"{where}the loss does not depend on the trainable {', '.join(unused)}")

    def apply_gradients(
        self,
        total: Tensors,
        context: StepContext,
        update: Callable[[Tensors, StepContext], StepResult] | None = None,
    ) -> StepResult:
        """Reduces sums over the replicas; updates model, optimizer slots and EMA if all are finite.

        Args:
          total: sums of this replica, over its micro-batches, of the results of
            `compute_gradients`.
          context: counters and loss scale before the step.
          update: does what `self.update` does, as compiled by XLA; None: `self.update`.

        Returns:
          The result of `update`.
        """
        update = update or self.update
        return update(self.reduce(total), context)  # L2: reduce, then check, then apply

    def update(self, total: Tensors, context: StepContext) -> StepResult:
        """Updates model, optimizer slots and EMA if all gradients and sums are finite.

        Args:
          total: sums over the replicas of the results of `compute_gradients`.
          context: counters and loss scale before the step.

        Returns:
          A `StepResult`: whether all gradients, statistics and metric sums were finite, in which
          case the variables were updated, unless `context.finite` is False; and the result of
          `metrics.step_sums`.
        """
        *reduced, sums = total
        gradients, statistics = reduced[: len(self._weights)], reduced[len(self._weights) :]
        if self.scaled:
            gradients = [gradient / context.loss_scale for gradient in gradients]
        if self._weighted_loss:  # L1: the mean weight of the whole global batch
            mean_weight = metrics.mean_weight(sums)
            gradients = [gradient / mean_weight for gradient in gradients]
        gradients, factor, norm = self._clip.factored(gradients)
        # A single infinity or nan makes the sum of all values infinite or nan. All replicas hold
        # the same values, so `finite` is the same on all of them.
        checked = [norm, *map(tf.reduce_sum, statistics), tf.cast(tf.reduce_sum(sums), tf.float32)]
        finite = tf.math.is_finite(tf.add_n(checked))

        def update() -> None:
            learning_rate = self.schedule(context.step, context.factor)
            # Multiplied here, XLA fuses the product and the update: one pass less over gradients.
            clipped = multiplied(gradients, factor)
            self.optimizer.apply(clipped, self._weights, learning_rate, context.updates)
            self._write_statistics(statistics)
            if self.average is not None:
                ema.update_ema(self.average, self.model, self.ema, context.updates)

        if context.finite is None:
            conditional_update(finite, update, self._updated, self.compiled)
        else:
            selected_update(finite & context.finite, update, self._updated)
        return StepResult(finite, metrics.step_sums(sums, norm))

    def _write_statistics(self, reduced: Tensors) -> None:
        values, weights = reduced[: len(reduced) // 2], reduced[len(reduced) // 2 :]
        for variable, value, weight in zip(self._statistics, values, weights, strict=True):
            mean = tf.where(weight > 0, value / tf.maximum(weight, 1e-30), variable)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=mean)
