"""L6: each function is traced once, and tracing it again gives the same graph."""

from __future__ import annotations

from collections import Counter

from engine.verify import graph
from engine.verify.certificate import Finding
from engine.verify.runs import VerificationRuns


def check(runs: VerificationRuns) -> Finding:
    """Checks that runs traced each function once and that retracing the loop gives the same graph.

    The functions are the training loop and the evaluations of each run assembled so far. Before the
    traces are counted, the reference run is evaluated a second time.
    """
    runs.score(runs.reference.parts)  # a second evaluation must not trace again
    most: Counter[str] = Counter()
    for parts in runs.built:
        most |= Counter(parts.traces)  # the maximum of each
    loop = runs.on(runs.topologies.one).parts.loop
    once, again = (graph.fingerprint(loop.graph(retrace=retrace)) for retrace in (False, True))
    other = sum(((once - again) + (again - once)).values())
    counts = ", ".join(f"{name} {count}" for name, count in most.items())
    graphs = f"{other} operations differ, as by a number of Python's" if other else "the same graph"
    done = f"traces of each function in {len(runs.built)} runs, and a step traced again"
    count = max(most.values()) + other
    return Finding(count == 1, done, f"{counts}; {graphs}", count, 1)
