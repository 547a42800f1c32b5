"""L8: any number of replicas evaluates each example once, with any batch size."""

from __future__ import annotations

import numpy as np

from engine.verify import bounds
from engine.verify.differences import Difference, difference, typical_sizes, worst
from engine.verify.finding import Finding
from engine.verify.runs import VerificationRuns


def check(runs: VerificationRuns) -> Finding:
    """Evaluates a split on one device, and in batches of an uneven size on several."""
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
        # A metric is a count if its sums are integers, up to the rounding of the division by the
        # examples. atol=0: in float32, sums of small values may be near 0 and are not counts.
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
    """Returns a batch size that divides neither the split nor evenly among replicas; else 1."""
    sizes = range(min(most, 2 * examples // 5), 1, -1)
    return next((size for size in sizes if examples % size and size % max(2, replicas)), 1)
