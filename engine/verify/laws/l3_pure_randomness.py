"""L3: two runs with the same seed are bitwise identical."""

from __future__ import annotations

import numpy as np

from engine.models.tracing import hidden_random_ops
from engine.verify.certificate import Finding, bits_not_checked, few, same_bits
from engine.verify.runs import STEPS, VerificationRuns
from engine.verify.trajectory import changed, state_bytes


def check(runs: VerificationRuns) -> Finding:
    """Checks that two runs are bitwise equal and that steps have no stateful random operations.

    The runs have the same seed, but different numbers of steps per call of the graph. The function
    compares their states after `STEPS` steps and the results of an evaluation. With
    `--deterministic=no`, only stateful random operations are looked for.
    """
    reference = runs.reference
    ops = hidden_random_ops(reference.parts.loop.graph())
    more = [f"a step draws by {few(ops)}, whose generator no checkpoint holds"] if ops else []
    if not runs.config.devices.is_deterministic:
        return Finding(False, "", more[0], len(ops), 0) if more else bits_not_checked()
    state = reference.trajectory.state
    again = runs.take(runs.assembled(runs.topologies.configured), STEPS)  # other steps per call
    differing = changed(state, state_bytes(again))
    for name, score in runs.score(again).items():
        if np.float64(score).tobytes() != np.float64(reference.scores[name]).tobytes():
            differing.append(name)
    done = f"{STEPS} steps and an evaluation, twice from seed {runs.config.run.seed}"
    return same_bits(done, differing, len(state), more)
