"""L4: a step's batch is the same for both feeds (in-memory, streaming), opened at any step."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.verify.certificate import Finding
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.sample import FULL_BATCHES

_STEPS = (FULL_BATCHES, CHECKPOINT_STEP, STEPS - 1)  # a partial batch, and steps of later epochs


def check(runs: VerificationRuns) -> Finding:
    """Checks that feeds opened at later steps give the same batches as a feed from step 0.

    The feeds are in-memory and streaming ones, or only streaming ones where the data set allows no
    other; the feed from step 0 is as configured.
    """
    configured = runs.topologies.configured
    from_start = runs.assembled(configured)
    expected = [_digest(from_start, step) for step in range(STEPS)]
    from_start.close()
    differing, kinds = 0, pipelines.feed_kinds(from_start.source)
    for kind in kinds:
        parts = runs.assembled(configured, feed=kind)
        differing += sum(_digest(parts, step) != expected[step] for step in _STEPS)
        parts.close()
    done = (
        f"batches {', '.join(map(str, _STEPS))} of fresh feeds, {' and '.join(kinds)}, and of a "
        f"{runs.feed_kind} one from step 0"
    )
    found = f"{differing} of {len(kinds) * len(_STEPS)} differ" if differing else "the same bits"
    if differing and not _reads_the_same_twice(from_start):
        name = from_start.source.name
        found += f": {name} gives other examples when the same ones are read again"
    return Finding(not differing, done, found, differing, 0)


def _reads_the_same_twice(parts: Parts) -> bool:
    """Returns whether two readers get the same examples of the first step from the data set."""
    source, config = parts.source, parts.config
    size, seed = config.training.global_batch_size, config.run.seed
    one, other = (
        pipelines.read_step_examples(source, source.train, 0, global_batch_size=size, seed=seed)
        for _ in range(2)
    )
    pairs = zip(tf.nest.flatten(one[1:]), tf.nest.flatten(other[1:]), strict=True)
    return all(left.tobytes() == right.tobytes() for left, right in pairs)


def _digest(parts: Parts, step: int) -> bytes:
    """Returns the SHA-256 of all tensors in the micro-batches of a step, on all replicas.

    Rows of inputs and targets that are padding are left out.
    """
    feed, digest = parts.feeds.training, hashlib.sha256()
    element, step_tensor = feed.next(feed.open(step, 1).given), tf.constant(step, tf.int64)

    def of_replica(element: Any, micro_batch: tf.Tensor) -> pipelines.Batch:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return feed.batch(element, step_tensor, replica, micro_batch)

    for micro_batch in range(feed.layout.local_micro_batches):
        index = tf.constant(micro_batch, tf.int64)
        batches = parts.strategy.run(of_replica, args=(element, index))
        copies = map(parts.strategy.experimental_local_results, tf.nest.flatten(batches))
        for leaves in zip(*copies, strict=True):
            batch = tf.nest.pack_sequence_as(batches, leaves)
            rows = np.flatnonzero(batch.mask)
            for part in tf.nest.flatten((batch.inputs, batch.targets, batch.fixed)):
                digest.update(part.numpy()[rows].tobytes())
            for part in batch[2:-1]:
                digest.update(np.asarray(part).tobytes())
    return digest.digest()
