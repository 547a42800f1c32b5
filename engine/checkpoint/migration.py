"""Converts the arrays of checkpoints of older versions; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.core.options import LARGEST_NORMS, MAX_KEEP_BEST

# Names of variables, or of groups of variables ("group/"): in checkpoints of 0.4.0, and now.
_RENAMED = {
    "average/": "ema/",
    "ended": "last_evaluation_step",
    "last_epoch_end_step": "last_evaluation_step",  # between 0.4.0 and 0.5.0
    "logged": "last_logged_sums",
    "loss_scale/good_steps": "loss_scale/finite_steps",
    "patience/waited": "patience/wait",
    "times/": "timing/",
    "watch/": "bad_steps/",
    "watch/bad": "bad_steps/tolerated",
    "watch/excess": "bad_steps/max_excess",
    "watch/left_out": "bad_steps/skipped",
    "watch/start": "bad_steps/initial_loss",
    "watch/why": "bad_steps/reasons",
    "written": "last_logged_step",
}
# Variables that checkpoints of 0.4.0 lack, and their default values. With these, the bad-step
# detector uses the oldest losses in the checkpoint as the losses at the start of training.
_ADDED = {
    "bad_steps/norms": np.full(LARGEST_NORMS, np.nan),
    "bad_steps/initial_loss": np.array(np.nan),
    "bad_steps/max_excess": np.array(0.0),
}
_REMOVED = ("update_ratio",)


def migrated(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts the arrays of a checkpoint of this or an older version to this version's names.

    Drops the array that only older versions use, adds default values of arrays that older versions
    lack, the ranking of the best evaluations from the best one, and converts the sums of metrics of
    0.4.0 to the current layout. Returns the arrays by name.
    """
    kept = {_current(name): array for name, array in arrays.items() if name not in _REMOVED}
    if "ended" in arrays:  # of 0.4.0
        kept |= {name: _sums(kept[name]) for name in ("sums", "last_logged_sums")}
    return {**_ADDED, **_ranking(kept), **kept}


def _ranking(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the ranking of the best evaluations for a checkpoint that records only the best one.

    The result is {} if `arrays` has no best evaluation either.
    """
    if "best/step" not in arrays:
        return {}
    values, steps = np.full(MAX_KEEP_BEST, np.nan), np.full(MAX_KEEP_BEST, -1, np.int64)
    values[0], steps[0] = arrays["best/value"], arrays["best/step"]
    return {"best/values": values, "best/steps": steps}


def _sums(sums: np.ndarray) -> np.ndarray:
    """Converts the sums of a checkpoint of 0.4.0, float64 [metrics + 4], to the current layout.

    [loss, each metric, examples, norms, steps] becomes [loss, weights, examples, each metric and
    its denominator, norms, steps]. The weights and denominators are the number of examples.
    """
    loss, *metrics, examples, norms, steps = sums
    pairs = [value for metric in metrics for value in (metric, examples)]
    return np.array([loss, examples, examples, *pairs, norms, steps])


def _current(name: str) -> str:
    group, slash, rest = name.partition("/")
    return _RENAMED.get(name) or _RENAMED.get(group + slash, group + slash) + rest
