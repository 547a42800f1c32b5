"""L8: an evaluation scores each example once, on any number of replicas, with any batch size."""

from __future__ import annotations

import numpy as np

from engine.core.metrics import summed
from engine.verify import bounds
from engine.verify.certificate import Finding
from engine.verify.differences import Difference, difference, worst
from engine.verify.runs import VerificationRuns


def check(runs: VerificationRuns) -> Finding:
    """Checks that evaluation on one device and on several scores each example of a split once.

    Both evaluations must count all examples, and the sums of their losses and metrics must agree
    within rounding error, although batches and replicas are uneven. In float32, sums that are
    integers, such as the number of correct predictions, must be equal. Collected metrics are not
    compared.
    """
    one, many = runs.topologies.one, runs.topologies.many
    examples = runs.sample.examples_scored
    configured_size = runs.config.training.evaluation_batch_size
    size = _uneven(examples, configured_size, many.replicas)
    alone = runs.on(one, **runs.without_xla).parts
    several = runs.assembled(many, evaluation_batch_size=size, **runs.without_xla)
    scores = [runs.score(runs.restored(parts)) for parts in (alone, several)]
    counted = [int(means["examples"]) for means in scores]
    miscounted = sum(abs(count - examples) for count in counted)
    found = [f"{counted[0]:,} and {counted[1]:,} of {examples:,} examples"]
    arithmetic, differences = runs.arithmetic(one), []
    bound = bounds.step_metric_bound(arithmetic)
    # Collected metrics may jump where rounding changes the order of two scores.
    for name in ("loss", *summed(alone.task.metrics)):
        sums = [means[name] * means["examples"] for means in scores]
        # A metric is a count if its sums are integers, up to the rounding error of dividing by the
        # number of examples. atol=0: sums of small float32 values may be near 0 and are no counts.
        if name != "loss" and np.allclose(sums, np.round(sums), rtol=1e-12, atol=0):
            counts = [round(value) for value in sums]
            found.append(f"{name} {counts[0]:,} and {counts[1]:,}")
            if arithmetic == "float32":
                miscounted += abs(counts[0] - counts[1])
                continue
        scale = runs.reference.trajectory.typical_sizes.get(name, 0.0) * examples
        differences.append(Difference(name, difference(sums[0], sums[1], scale), bound))
    largest = worst(differences)
    done = (
        f"{runs.sample.scored_from} in batches of {configured_size} on 1 and of {size} on "
        f"{many.replicas} replicas{runs.xla_note}"
    ).removesuffix(",")
    passed = not miscounted and largest.within
    return Finding(passed, done, ", ".join([*found, str(largest)]), miscounted, 0)


def _uneven(examples: int, at_most: int, replicas: int) -> int:
    """Returns the largest batch size with a partial batch and uneven replicas; 1 if there is none.

    `examples` is not a multiple of the size, and the size is not a multiple of `replicas`, or of 2
    for one replica. The size is at most `at_most` and 2/5 of the examples.
    """
    sizes = range(min(at_most, 2 * examples // 5), 1, -1)
    return next((size for size in sizes if examples % size and size % max(2, replicas)), 1)
