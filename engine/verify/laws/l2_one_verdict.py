"""L2: if the gradient is not finite on one replica, no replica updates its weights."""

from __future__ import annotations

import numpy as np

from engine.assembly.parts import Parts
from engine.verify.certificate import Finding, few
from engine.verify.runs import VerificationRuns, fault_injector
from engine.verify.trajectory import changed, state_bytes, take, weights

_OVERFLOWS = 8  # maximum number of steps until one does not overflow, with a dynamic loss scale


def check(runs: VerificationRuns) -> Finding:
    """Checks that an infinite or nan gradient of a row on the last replica changes no weights.

    In that step, only the step counter and the loss scale may change. The next finite step must
    update the weights, to finite values. The function checks a run on the configured devices and a
    run on several devices, unless these are the same. If the run fails on several devices, only the
    configured ones are checked, because L7 reports the failure.
    """
    configured, many = runs.topologies.configured, runs.topologies.many
    problems, where, note = [], "", ""
    for devices in (configured, many)[: 1 if many.description == configured.description else 2]:
        try:
            run = runs.on(devices, **({} if devices is configured else runs.without_xla))
        except (ValueError, RuntimeError):
            if devices is configured:
                raise
            continue  # L7 reports a run that fails on several devices
        note = "" if devices is configured else runs.xla_note.removesuffix(",")
        parts = runs.restored(run.parts)
        row, replica = _last_row(parts, runs.sample.batch)
        where = f"row {row} of {runs.sample.batch} (replica {replica + 1} of {devices.replicas})"
        for factor in (np.inf, np.nan):
            problems += _problems(runs, parts, row, factor)
    done = f"infinity, then nan, in the gradient of {where}{note}"
    as_expected = "only step and loss scale changed; the next step updated the weights"
    found = "; ".join(dict.fromkeys(problems)) or as_expected
    return Finding(not problems, done, found, len(problems), 0)


def _last_row(parts: Parts, batch: int) -> tuple[int, int]:
    """Returns (row, replica) of the last row of a full batch on the last replica that has any.

    `row` is the index in the global batch of `batch` examples; both count from 0.
    """
    layout = parts.feeds.training.layout
    micro_rows = -(-batch // layout.micro_batches)
    rows = -(-micro_rows // layout.all_shards)
    replica, row = max((r % micro_rows // rows // layout.local_shards, r) for r in range(batch))
    return row, replica


def _problems(runs: VerificationRuns, parts: Parts, row: int, factor: float) -> list[str]:
    """Takes a step with a faulty gradient, then steps until an update; returns violations of L2.

    Args:
      runs: runs of the configuration.
      parts: run that takes the steps, first those to the end of the epoch, so that the faulty step
        has a full batch.
      row: row of the batch whose gradient is multiplied by `factor`.
      factor: infinity or nan.

    Returns:
      A description of each violation, as text.
    """
    state, options = parts.state, parts.config.precision
    scale = state.loss_scale
    runs.take(parts, -int(state.step) % parts.steps_per_epoch)
    free = (state.step, scale.value, scale.finite_steps)
    before, step, updates = state_bytes(parts, but=free), int(state.step), int(state.updates)
    expected = float(scale.value)
    if scale.dynamic:
        floor = min(options.loss_scale_floor, expected)
        expected = max(expected / options.loss_scale_factor, floor)
    fault_injector(parts).inject(row, factor)
    take(parts, 1)
    fault_injector(parts).heal()
    problems = []
    if names := changed(before, state_bytes(parts, but=free)):
        problems.append(f"{factor} changed {few(names)}")
    if int(state.step) != step + 1:
        problems.append(f"{factor} took the step to {int(state.step)}, not to {step + 1}")
    if float(scale.value) != expected:
        problems.append(f"the loss scale became {float(scale.value):g}, not {expected:g}")
    old = weights(parts)
    for _ in range(_OVERFLOWS if scale.dynamic else 1):
        take(parts, 1)
        if int(state.updates) > updates:
            break
    new = weights(parts)
    if all(new[name].tobytes() == old[name].tobytes() for name in old):
        problems.append(f"the step after {factor} did not move the weights")
    if not all(np.isfinite(value).all() for value in new.values()):
        problems.append(f"weights are not finite after {factor}")
    return problems
