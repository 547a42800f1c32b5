"""L5: a resumed run ends bitwise identical to a run that was not interrupted."""

from __future__ import annotations

from engine.verify.finding import Finding, few, same_bits
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.trajectory import changed, state_bytes


def check(runs: VerificationRuns) -> Finding:
    """Resumes a new run from a checkpoint; reports writes to variables outside the state."""
    home = runs.home
    resumed = runs.restored(runs.assembled(runs.topologies.home))
    runs.take(resumed, STEPS - CHECKPOINT_STEP)
    differing = changed(home.whole.everything, state_bytes(resumed))
    more = [f"steps write {few(home.written)}, not in the state"] if home.written else []
    done = f"saved after step {CHECKPOINT_STEP}, rebuilt, resumed to step {STEPS}"
    return same_bits(done, differing, len(home.whole.everything), more)
