"""L1: an example's loss does not depend on others, nor the update on gradient accumulation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.verify import bounds
from engine.verify.differences import (
    Difference,
    difference,
    typical_sizes,
    whole_model_differences,
    worst,
)
from engine.verify.finding import Finding, apart, not_compared
from engine.verify.runs import VerificationRuns, poisoned
from engine.verify.trajectory import step_together, updated_alike

_UPDATES = 4  # steps after the checkpoint; they include a partial batch and the end of an epoch


def check(runs: VerificationRuns) -> Finding:
    """Compares losses of a batch and of its chunks, then updates with and without accumulation.

    The updates start from the same state.
    """
    batch, given = runs.sample.batch, runs.config.training.accumulate
    devices = runs.topologies.home if runs.topologies.home.replicas == 1 else runs.topologies.one
    own = runs.restored(runs.on(devices).parts)
    wrong = _rows_together(runs, own)
    if not wrong.passed or batch == 1:
        return wrong
    if runs.batch_norm:
        return not_compared("batch norm sees its micro-batch")
    micro_batches = 1 if given > 1 else min(4, batch)
    cut = runs.assembled(devices, accumulate=micro_batches)
    pairs = updated_alike([step_together(own, cut) for _ in range(_UPDATES)])
    if not pairs:
        return not_compared("gradients overflow at this loss scale")
    arithmetic, sizes = runs.arithmetic(devices), typical_sizes(runs.home.whole)
    found = worst(
        [part for pair in pairs for part in whole_model_differences(*pair, arithmetic, sizes)]
    )
    done = (
        f"{len(pairs)} updates of {micro_batches} micro-batches and of {given} from the same state"
    )
    return apart(done, found)


def _rows_together(runs: VerificationRuns, parts: Parts) -> Finding:
    """Checks that the loss of an example does not depend on the other examples of its batch.

    The losses are computed as in evaluation, so that batch norm does not use batch statistics.
    """
    done = f"{runs.sample.batch} rows evaluated at once and in 4 portions"
    feed = pipelines.open_feed(
        "resident",
        runs.sample.source,
        runs.sample.source.train,
        global_batch_size=runs.sample.batch,
        seed=None,
        layout=pipelines.BatchLayout(),
        strategy=tf.distribute.get_strategy(),
        cache_dir=parts.config.data.cache_dir,
    )
    whole = feed.batch(feed.next(feed.open(0, 1).given), tf.constant(0, tf.int64), 0)
    dtype = compute_dtype(runs.config.precision.precision)

    @tf.function(autograph=False)
    def losses(batch: pipelines.Batch) -> tf.Tensor:
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        return tf.cast(poisoned(parts).task(parts.model, batch, context).losses, tf.float32)

    together = losses(whole).numpy()
    if together.shape != (runs.sample.batch,):
        return Finding(False, done, f"losses of shape {together.shape}, not one a row")
    batch, portions = runs.sample.batch, []
    rows_of_portion = -(-batch // 4)
    for first in range(0, batch, rows_of_portion):
        rows = slice(first, first + rows_of_portion)
        portion = whole._replace(
            inputs=whole.inputs[rows],
            targets=whole.targets[rows],
            mask=whole.mask[rows],
            row=whole.row + first,
            place=whole.place + first,
        )
        portions.append(losses(portion).numpy())
    allowed = bounds.step_metric_bound(runs.arithmetic(runs.topologies.one))
    # Norm of a vector of `batch` typical losses.
    size = typical_sizes(runs.home.whole).get("loss", 0.0) * batch**0.5
    measured = difference(together, np.concatenate(portions), size)
    return apart(done, Difference("losses of rows", measured, allowed))
