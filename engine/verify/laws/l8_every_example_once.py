"""L8: an evaluation scores each example once, on any number of replicas, with any batch size."""

from __future__ import annotations

import numpy as np

from engine.verify import bounds
from engine.verify.differences import Difference, difference, typical_sizes, worst
from engine.verify.finding import Finding
from engine.verify.runs import VerificationRuns


def check(runs: VerificationRuns) -> Finding:
    """Evaluates a split on one device, and on several with a batch size that leaves remainders."""
    one, many = runs.topologies.one, runs.topologies.many
    examples, given = runs.sample.examples_scored, runs.config.training.evaluation_batch_size
    size = _uneven(examples, given, many.replicas)
    alike = runs.across
    parts_of = [runs.on(one, **alike).parts]
    parts_of.append(runs.assembled(many, evaluation_batch_size=size, **alike))
    scores = [runs.score(runs.restored(parts)) for parts in parts_of]
    counted = [int(means["examples"]) for means in scores]
    wrong = sum(abs(count - examples) for count in counted)
    words = [f"{counted[0]:,} and {counted[1]:,} of {examples:,} examples"]
    arithmetic, differences = runs.arithmetic(one), []
    sizes = typical_sizes(runs.home.whole)
    allowed = bounds.step_metric_bound(arithmetic)
    for name in ("loss", *parts_of[0].task.metrics):
        sums = [means[name] * means["examples"] for means in scores]
        # A metric is a count if its sums are integers, up to the rounding error of dividing by the
        # number of examples. atol=0: sums of small float32 values may be near 0 and are no counts.
        if name != "loss" and np.allclose(sums, np.round(sums), rtol=1e-12, atol=0):
            right = [round(value) for value in sums]
            words.append(f"{name} {right[0]:,} and {right[1]:,}")
            if arithmetic == "float32":
                wrong += abs(right[0] - right[1])
                continue
        scale = sizes.get(name, 0.0) * examples
        differences.append(Difference(name, difference(sums[0], sums[1], scale), allowed))
    furthest = worst(differences)
    done = f"{runs.sample.scored_from} in batches of {given} on 1 and of {size} on {many.replicas}"
    passed = not wrong and furthest.within
    done = f"{done} replicas{runs.without_xla}".removesuffix(",")
    return Finding(passed, done, ", ".join([*words, str(furthest)]), wrong, 0)


def _uneven(examples: int, most: int, replicas: int) -> int:
    """Returns the largest suitable batch size; 1 if there is none.

    It does not divide the number of examples and is not a multiple of the number of replicas.
    """
    sizes = range(min(most, 2 * examples // 5), 1, -1)
    return next((size for size in sizes if examples % size and size % max(2, replicas)), 1)
