"""L3: two runs with the same seed are bitwise identical."""

from __future__ import annotations

import numpy as np

from engine.verify import graph
from engine.verify.finding import Finding, few, same_bits
from engine.verify.runs import STEPS, VerificationRuns
from engine.verify.trajectory import changed, state_bytes


def check(runs: VerificationRuns) -> Finding:
    """Compares two runs with different steps per call; searches for stateful random operations."""
    home = runs.home
    again = runs.take(runs.assembled(runs.topologies.home), STEPS)
    differing = changed(home.whole.everything, state_bytes(again))
    scores = runs.score(again)
    differing += [name for name in scores if _differ(scores[name], home.scores[name])]
    drawn = graph.hidden_random_ops(home.whole.parts.loop.graph())
    more = [f"a step draws by {few(drawn)}, whose generator no checkpoint holds"] if drawn else []
    done = f"{STEPS} steps and an evaluation, twice from seed {runs.config.run.seed}"
    return same_bits(done, differing, len(home.whole.everything), more)


def _differ(one: float, other: float) -> bool:
    return np.float64(one).tobytes() != np.float64(other).tobytes()
