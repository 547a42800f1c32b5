"""L5: a run that is rebuilt and restored ends as one that was never stopped."""

from __future__ import annotations

from engine.verify.finding import Finding, few, same_bits
from engine.verify.runs import SAVED, STEPS, VerificationRuns
from engine.verify.trajectory import changed, everything_in


def check(bench: VerificationRuns) -> Finding:
    """Resumes a rebuilt run from a checkpoint; looks for writes outside the state."""
    home = bench.home
    resumed = bench.restored(bench.assembled(bench.topologies.home))
    bench.take(resumed, STEPS - SAVED)
    differing = changed(home.whole.everything, everything_in(resumed))
    more = [f"steps write {few(home.written)}, not in the state"] if home.written else []
    done = f"saved after step {SAVED}, put together anew, gone on with to step {STEPS}"
    return same_bits(done, differing, len(home.whole.everything), more)
