"""L5: a run that is rebuilt and restored ends as one that was never stopped."""

from __future__ import annotations

from engine.verify.finding import Finding, few, same_bits
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.trajectory import changed, state_bytes


def check(runs: VerificationRuns) -> Finding:
    """Resumes a rebuilt run from a checkpoint; looks for writes outside the state."""
    home = runs.home
    resumed = runs.restored(runs.assembled(runs.topologies.home))
    runs.take(resumed, STEPS - CHECKPOINT_STEP)
    differing = changed(home.whole.everything, state_bytes(resumed))
    more = [f"steps write {few(home.written)}, not in the state"] if home.written else []
    done = f"saved after step {CHECKPOINT_STEP}, rebuilt, resumed to step {STEPS}"
    return same_bits(done, differing, len(home.whole.everything), more)
