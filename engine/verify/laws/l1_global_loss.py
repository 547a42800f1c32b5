"""L1: a loss does not depend on other examples, nor an update on gradient accumulation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.core.augmentation import preprocessed
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.verify import bounds
from engine.verify.certificate import Finding, apart, not_compared
from engine.verify.differences import Difference, difference, whole_model_differences, worst
from engine.verify.forward import first_batch, gathered
from engine.verify.runs import VerificationRuns, fault_injector
from engine.verify.trajectory import steps_together

_UPDATES = 4  # steps after the checkpoint; they include a partial batch and the end of an epoch


def check(runs: VerificationRuns) -> Finding:
    """Checks that losses do not depend on other examples, nor updates on gradient accumulation.

    The function compares the losses of a batch evaluated at once with those evaluated in chunks,
    then the updates, from the same state, of different numbers of micro-batches. Updates are not
    compared if the batch is a single example, if the model's outputs (as with batch norm) or random
    numbers depend on the micro-batch, or if the gradients of only one run overflow in each step.
    """
    batch, accumulate = runs.sample.batch, runs.config.training.accumulate
    reference = runs.restored(runs.on(runs.single).parts)
    finding = _losses_of_rows(runs, reference)
    if not finding.passed or batch == 1:
        return finding
    if runs.cross_example:
        return not_compared("batch norm, or the like, sees its micro-batch")
    if runs.per_microbatch:
        return not_compared("random numbers of the model depend on the micro-batch")
    micro_batches = 1 if accumulate > 1 else min(4, batch)
    other = runs.assembled(runs.single, accumulate=micro_batches)
    pairs = steps_together(reference, other, _UPDATES)
    if not pairs:
        return not_compared("gradients overflow at this loss scale")
    arithmetic, sizes = runs.arithmetic(runs.single), runs.reference.trajectory.typical_sizes
    differences = [d for pair in pairs for d in whole_model_differences(*pair, arithmetic, sizes)]
    done = (
        f"{len(pairs)} updates of {micro_batches} micro-batches and of {accumulate} from the same "
        "state"
    )
    return apart(done, worst(differences))


def _losses_of_rows(runs: VerificationRuns, parts: Parts) -> Finding:
    """Checks that each example has one loss, which does not depend on the rest of the batch.

    The function compares the losses of a batch evaluated at once with those evaluated in 4 chunks.
    The losses are computed as in evaluation, so that batch norm does not use batch statistics.
    """
    size, source = runs.sample.batch, runs.sample.source
    done = f"{size} rows evaluated at once and in 4 portions"
    batch = first_batch(parts, runs.sample)
    dtype = compute_dtype(runs.config.precision.precision)

    @tf.function(autograph=False)
    def losses(batch: pipelines.Batch) -> tf.Tensor:
        context = ForwardContext(mask=batch.mask, dtype=dtype)
        batch = preprocessed(batch, None, source.preprocess)
        return tf.cast(fault_injector(parts).task(parts.model, batch, context).losses, tf.float32)

    at_once = losses(batch).numpy()
    if at_once.shape != (size,):
        return Finding(False, done, f"losses of shape {at_once.shape}, not one a row")
    rows, chunk_size = np.arange(size), -(-size // 4)
    chunks = [
        losses(gathered(batch, rows[first : first + chunk_size])).numpy()
        for first in range(0, size, chunk_size)
    ]
    bound = bounds.step_metric_bound(runs.arithmetic(runs.topologies.one))
    # Norm of a vector of `size` typical losses.
    scale = runs.reference.trajectory.typical_sizes.get("loss", 0.0) * size**0.5
    measured = difference(at_once, np.concatenate(chunks), scale)
    return apart(done, Difference("losses of rows", measured, bound))
