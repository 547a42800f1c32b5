"""L7: a run has the same trajectory on, and can be resumed on, any number of replicas."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.assembly.parts import Parts
from engine.verify import rounding_errors
from engine.verify.certificate import (
    Finding,
    apart,
    bits_not_checked,
    few,
    not_compared,
    same_bits,
)
from engine.verify.differences import MEANS, Difference, tensors, worst
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.trajectory import Pairs, changed, steps_together

# Relative change of weights that stands for the rounding errors of a step: 16 units in the last
# place of float32, about as many as sums of some hundred terms have.
_ROUNDING = 2.0**-20
_FACTOR = 10  # largest ratio of a step's difference to its sensitivity to such a change
_LARGEST = 0.1  # largest relative difference of a step that rounding errors may explain


def check(runs: VerificationRuns) -> Finding:
    """Checks that steps on one device and on several agree, from the start and a checkpoint.

    All replicas must hold the same values. With virtual shards, the states on one device and on
    several must be bitwise equal; else they must agree within the bound for rounding errors. A
    rounding error can change the sign of a ReLU's input, after which two runs diverge. So a larger
    difference passes, too, if single steps from the same state agree within the bound, or if
    `_explained` attributes the differences of single steps to rounding errors.

    The runs are not compared with `--shards=1`, with `--shards` and `--deterministic=no`, if random
    numbers of the model depend on the micro-batch and `--shards` is not given, or if the gradients
    of only one run overflow in each single step.
    """
    one, many = runs.topologies.one, runs.topologies.many
    if many is one:
        return not_compared("--shards=1 leaves nothing to share")
    if runs.per_microbatch and not runs.config.devices.shards:
        return not_compared(
            "random numbers of the model depend on the micro-batch: give --shards to have them the "
            "same on any devices"
        )
    chunked, arithmetic = _chunked(runs)
    micro_batches = f", in {chunked['accumulate']} micro-batches," if chunked else ""
    done = (
        f"{STEPS} steps on 1{micro_batches} and on {many.replicas} replicas,{runs.xla_note} and on "
        f"from step {CHECKPOINT_STEP}"
    )
    of_one, of_many = {**runs.without_xla, **chunked}, runs.without_xla
    pairs = [
        (runs.on(one, **of_one), runs.on(many, **of_many)),
        (runs.continued(one, **of_one), runs.continued(many, **of_many)),
    ]
    if names := [name for _, several in pairs for name in several.out_of_sync]:
        return Finding(False, done, f"replicas hold different {few(names)}", len(names), 0)
    if runs.config.devices.shards and not runs.config.devices.is_deterministic:
        return bits_not_checked()
    if runs.config.devices.shards:
        differing = [name for a, b in pairs for name in changed(a.state, b.state)]
        return same_bits(done, differing, len(pairs[0][0].state))

    def differences(pairs: Pairs) -> list[Difference]:
        sizes = runs.reference.trajectory.typical_sizes
        return [d for pair in pairs for d in tensors(*pair, arithmetic, sizes)]

    all_steps = worst(differences(pairs))
    if all_steps.within:
        return apart(done, all_steps)
    alone, several = (runs.restored(trajectory.parts) for trajectory in pairs[0])
    steps = steps_together(alone, several, STEPS - CHECKPOINT_STEP)
    if not steps:
        return not_compared("gradients overflow at this loss scale")
    single = worst(differences(steps))
    if single.within:
        grown = f"over all steps rounding errors grew to {all_steps.measured:.1e}"
        return apart(done, single, f"{single}, each from the same state; {grown}")
    perturbed = runs.assembled(one, **of_one)
    changes = steps_together(alone, perturbed, STEPS - CHECKPOINT_STEP, _Perturbation())
    found = f"{all_steps}; after one step from the same state {single}"
    finding = _explained(done, found, differences(steps), differences(changes))
    if finding.passed or arithmetic not in ("mixed_bfloat16", "mixed_float16"):
        return finding
    exact = runs.assembled(one, **{**of_one, "precision": "float32"})
    in_float32 = steps_together(runs.restored(alone), exact, STEPS - CHECKPOINT_STEP)
    return _no_further_from_float32(finding, steps, in_float32, arithmetic)


def _no_further_from_float32(
    finding: Finding, steps: Pairs, exact: Pairs, arithmetic: str
) -> Finding:
    """Returns a finding that passes if several devices round no worse than one; else `finding`.

    Their errors relative to float32 are compared by `rounding_errors.single_steps`.

    Args:
      finding: finding of a difference that exceeds its bounds.
      steps: single steps on one device and on several.
      exact: the steps from the same checkpoint on one device, and on that device in float32.
      arithmetic: result of `bounds.arithmetic`, not "float32".
    """
    if not len(exact) == len(steps) == STEPS - CHECKPOINT_STEP:  # gradients overflowed in some
        return finding
    compared = rounding_errors.single_steps(exact, steps, arithmetic)
    if not all(difference.within for difference in compared):
        return finding
    largest = worst(compared)
    found = f"{finding.found}; relative to float32, no further than one device: {largest}"
    return apart(finding.done, largest, found)


def _explained(
    done: str, found: str, steps: list[Difference], changes: list[Difference]
) -> Finding:
    """Returns a finding that passes if rounding errors explain the differences of single steps.

    The largest difference must be within its bound, or at most `_FACTOR` times the largest change
    that `_Perturbation` causes; this product must be at most `_LARGEST`. Tensors whose change
    exceeds `_LARGEST / _FACTOR` are left out, if they are fewer than half: their gradients are 0
    but for rounding errors.

    Args:
      done: description of what the check did.
      found: description of what the check found so far.
      steps: differences of single steps between one device and several.
      changes: differences of single steps on one device, between the weights and perturbed weights;
        empty if there are none, and then only the bound counts.
    """
    noise = {d.name for d in changes if d.name not in MEANS and _FACTOR * d.measured > _LARGEST}
    if 2 * len(noise) < len({d.name for d in changes}):
        steps, changes = ([d for d in each if d.name not in noise] for each in (steps, changes))
        if noise:
            found += f"; without {few(sorted(noise))}, whose gradient is rounding error,"
    single = worst(steps)
    if single.within or not changes:
        return apart(done, single, f"{found} {single}")
    sensitivity = worst(changes)
    allowed = _FACTOR * sensitivity.measured
    if not single.measured <= allowed <= _LARGEST:
        return apart(done, single, found)
    explained = Difference(single.name, single.measured, allowed)
    switched = (
        f"on one device, changing the weights by {_ROUNDING:.0e} of themselves changes a step by "
        f"{sensitivity.measured:.1e}: rounding switches units, as of ReLU"
    )
    return apart(done, explained, f"{found}; {switched}")


class _Perturbation:
    """Callable that multiplies the trainable variables of a run by random factors near 1.

    The factors are uniformly distributed from 1 - `_ROUNDING` to 1 + `_ROUNDING`.
    """

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def __call__(self, parts: Parts) -> None:
        for variable in parts.model.trainable_variables:
            noise = self._random.uniform(-_ROUNDING, _ROUNDING, variable.shape)
            variable.assign(variable.numpy() * (1 + noise).astype(np.float32))


def _chunked(runs: VerificationRuns) -> tuple[dict[str, Any], str]:
    """Returns options that make one device compute as several, and the arithmetic for the bounds.

    In mixed precision the gradient of each chunk of a batch is rounded, and a bound must allow for
    chunks whose gradients cancel. A device that computes the same chunks sequentially, as
    micro-batches, rounds each of them identically: only float32 sums can differ.

    Returns:
      The number of micro-batches as {"accumulate": chunks}, and "float32". If chunks are not needed
      (in float32, or with virtual shards) or cannot be the same (because of the batch size, or if
      outputs depend on other examples): {}, and the result of `bounds.arithmetic`.
    """
    accumulate, arithmetic = runs.config.training.accumulate, runs.arithmetic(runs.topologies.one)
    chunks, batch = accumulate * runs.topologies.many.replicas, runs.sample.batch
    same = chunks <= batch and (accumulate == 1 or batch % chunks == 0)
    exact = arithmetic == "float32" or runs.config.devices.shards > 0
    if exact or runs.cross_example or not same:
        return {}, arithmetic
    return {"accumulate": chunks}, "float32"
