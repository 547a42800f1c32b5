"""L7: a run has the same trajectory on, and can be resumed on, any number of replicas."""

from __future__ import annotations

from typing import Any

from engine.distributed.strategies import Devices
from engine.verify.differences import tensors, typical_sizes, worst
from engine.verify.finding import Finding, apart, few, not_compared, same_bits
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.trajectory import changed, step_together, updated_alike


def check(runs: VerificationRuns) -> Finding:
    """Compares steps on one device and on several, from the start and from a checkpoint.

    A rounding error can change the sign of a ReLU's input, after which two runs diverge. So if the
    runs differ by more than the bound, single steps from the same state decide: if those agree, the
    cause is accumulated rounding errors.
    """
    one, many = runs.topologies.one, runs.topologies.many
    if many is one:
        return not_compared("--shards=1 leaves nothing to share")
    in_turn, arithmetic = _in_turn(runs, one, many)
    cut = f", in {in_turn['accumulate']} micro-batches," if in_turn else ""
    done = (
        f"{STEPS} steps on 1{cut} and on {many.replicas} replicas,{runs.without_xla} and on from "
        f"step {CHECKPOINT_STEP}"
    )
    alike, in_turn = runs.across, {**runs.across, **in_turn}
    pairs = [
        (runs.on(one, **in_turn), runs.on(many, **alike)),
        (runs.continued(one, **in_turn), runs.continued(many, **alike)),
    ]
    if torn := [name for _, several in pairs for name in several.torn]:
        return Finding(False, done, f"replicas hold different {few(torn)}", len(torn), 0)
    if runs.config.devices.shards:
        differing = [name for a, b in pairs for name in changed(a.everything, b.everything)]
        return same_bits(done, differing, len(pairs[0][0].everything))
    sizes = typical_sizes(runs.home.whole)
    free = worst([part for pair in pairs for part in tensors(*pair, arithmetic, sizes)])
    if free.within:
        return apart(done, free)
    alone, several = (runs.restored(trajectory.parts) for trajectory in pairs[0])
    steps = updated_alike([step_together(alone, several) for _ in range(STEPS - CHECKPOINT_STEP)])
    if not steps:
        return not_compared("gradients overflow at this loss scale")
    single = worst([part for pair in steps for part in tensors(*pair, arithmetic, sizes)])
    if not single.within:
        return apart(done, free, f"{free}; after one step from the same state {single}")
    grown = f"over all steps rounding errors grew to {free.measured:.1e}"
    words = f"{single}, each from the same state; {grown}"
    return apart(done, single, words)


def _in_turn(runs: VerificationRuns, one: Devices, many: Devices) -> tuple[dict[str, Any], str]:
    """Returns options with which one device computes as several, and the precision to compare in.

    In mixed precision the gradient of each chunk of a batch is rounded, and a bound must allow for
    chunks whose gradients cancel. A device that computes the same chunks sequentially, as
    micro-batches, rounds each of them identically: only float32 sums can differ.
    """
    given, arithmetic = runs.config.training.accumulate, runs.arithmetic(one)
    portions = given * many.replicas
    same = portions <= runs.sample.batch and (given == 1 or runs.sample.batch % portions == 0)
    exact = arithmetic == "float32" or runs.config.devices.shards > 0
    if exact or runs.batch_norm or not same:
        return {}, arithmetic
    return {"accumulate": portions}, "float32"
