"""L4: a step's batch depends neither on the kind of feed nor on the step at which it is opened."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.verify.finding import Finding
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.sample import FULL_BATCHES

_AT = (FULL_BATCHES, CHECKPOINT_STEP, STEPS - 1)  # a partial batch, and steps of later epochs


def check(runs: VerificationRuns) -> Finding:
    """Compares batches of new in-memory and streaming feeds with those of one read from step 0."""
    home = runs.topologies.home
    through = runs.assembled(home)
    came = [_batch_at(through, step) for step in range(STEPS)]
    through.close()
    differing = 0
    for kind in ("resident", "stream"):
        fresh = runs.assembled(home, feed=kind)
        differing += sum(_batch_at(fresh, step) != came[step] for step in _AT)
        fresh.close()
    done = (
        f"batches {', '.join(map(str, _AT))} of fresh feeds, resident and stream, and of a "
        f"{runs.feed_kind} one from step 0"
    )
    words = f"{differing} of {2 * len(_AT)} differ" if differing else "the same bits"
    return Finding(not differing, done, words, differing, 0)


def _batch_at(parts: Parts, step: int) -> bytes:
    """Returns a digest of a step's micro-batches: images, labels, mask, positions and epoch."""
    feed, digest = parts.feeds.training, hashlib.sha256()
    element, at = feed.next(feed.open(step, 1).given), tf.constant(step, tf.int64)

    def portion(element: Any, micro_batch: tf.Tensor) -> pipelines.Batch:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return feed.batch(element, at, replica, micro_batch)

    for micro_batch in range(feed.layout.local_micro_batches):
        found = parts.strategy.run(portion, args=(element, tf.constant(micro_batch, tf.int64)))
        copies = [parts.strategy.experimental_local_results(part) for part in found]
        for batch in map(pipelines.Batch._make, zip(*copies, strict=True)):
            rows = np.flatnonzero(batch.mask)
            shown = (batch.inputs.numpy()[rows], batch.targets.numpy()[rows], *batch[2:])
            for part in shown:
                digest.update(np.asarray(part).tobytes())
    return digest.digest()
