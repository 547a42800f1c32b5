"""L5: a resumed run ends bitwise identical to a run that was not interrupted."""

from __future__ import annotations

from engine.verify.certificate import Finding, bits_not_checked, few, same_bits
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.trajectory import changed, state_bytes


def check(runs: VerificationRuns) -> Finding:
    """Checks that a run resumed from a checkpoint ends bitwise equal to the uninterrupted run.

    Also checks that the steps of the uninterrupted run write no variable outside the training
    state. With `--deterministic=no`, only that is checked.
    """
    state, written = runs.reference.trajectory.state, runs.reference.written
    more = [f"steps write {few(written)}, not in the state"] if written else []
    if not runs.config.devices.is_deterministic:
        return Finding(False, "", more[0], len(written), 0) if more else bits_not_checked()
    resumed = runs.restored(runs.assembled(runs.topologies.configured))
    runs.take(resumed, STEPS - CHECKPOINT_STEP)
    done = f"saved after step {CHECKPOINT_STEP}, rebuilt, resumed to step {STEPS}"
    return same_bits(done, changed(state, state_bytes(resumed)), len(state), more)
