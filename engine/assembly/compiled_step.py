"""Examines whether XLA should compile the steps of a run on a CPU, for `--jit=auto`.

A checkpoint keeps the result, and a resumed run uses it: another version of TensorFlow or of
Tapeline might find another one, and XLA rounds differently.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pipelines
from engine.assembly import device_memory, processor_choices
from engine.assembly.processor_choices import ComputeDevices
from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import DamagedError
from engine.config.schema import Config
from engine.core import compilable, flops, xla
from engine.core.step import Step
from engine.runtime import onednn, user_code
from engine.runtime.processor import this_processor

KEY = "jit_obstacle"  # of the metadata of a checkpoint
# Modes that train; the others compute no training step.
_MODES = ("train", "benchmark", "tune", "verify", "inspect")
# From this mean number of multiplications of a matrix product on, oneDNN's kernels of bfloat16 are
# faster than XLA's; below it, what XLA saves between operations counts more (benchmarks/NOTES.md).
_LARGE = 16e6
_SLOWER = "oneDNN's matrix products in bfloat16 are faster than XLA's"
_OLDER = "the run was started by a version that compiled no steps with user-defined parts"
_CHANGED = "a user's file has changed, and XLA does not compile all operations of the step"


class StepExamination:
    """Callable that returns what speaks against compiling the steps of a run; "" if nothing does.

    It is `obstacle` of `xla.choose`, which calls it only where the choice depends on it.

    Args:
      config: options of the run, with a `--precision` that is not "auto".
      source: data set.
      step: the training step, as it would be for XLA.
      rows: rows of a local micro-batch.

    Attributes:
      result: what a call has returned, or what the run to resume has kept; None: neither.
    """

    def __init__(self, config: Config, source: pipelines.Source, step: Step, rows: int) -> None:
        self._mode, self._source, self._step, self._rows = config.run.mode, source, step, rows
        resumes = config.run.mode == "train" and config.run.resume != "never"
        self._kept = kept(config.run.run_dir) if resumes else None
        self.result: str | None = (self._kept or {}).get(KEY, None)
        precision = config.precision.precision
        self._sixteen = precision == "mixed_bfloat16" and processor_choices.is_native(
            precision, ComputeDevices(this_processor()), onednn.state()
        )

    def __call__(self, own: bool) -> str:
        """Returns the obstacle, by a look at the graph unless the run has kept what was found.

        Args:
          own: whether model, task, metrics and optimizer are all Tapeline's.
        """
        if self._mode not in _MODES or not (own or xla.is_own(self._step.optimizer)):
            return "" if own else xla.USER_DEFINED
        if self._kept is not None and self.result is None and own:
            return ""  # a run of a version that always compiled these, or one of several devices
        if self._kept is not None and KEY not in self._kept:
            return _OLDER
        if self.result is None:
            self.result = self._examined(own)
        elif self._has_changed(own):
            return _CHANGED if self._examined(own) not in ("", _SLOWER) else ""
        return self.result

    def _has_changed(self, own: bool) -> bool:
        """Returns whether a user's file has changed since the run was found compilable."""
        if own or self.result or not self._kept:
            return False
        return bool(self._kept.get("load") != user_code.digests())

    def _examined(self, own: bool) -> str:
        if own and not self._sixteen:
            return ""
        batch = device_memory.batch_spec(self._source, self._rows)
        try:
            function = compilable.traced(device_memory.gradients_of(self._step), batch)
        except Exception:  # also one of a user's code, which the trace of the loop reports
            return "" if own else compilable.NOT_CONVERTED
        found = "" if own else compilable.obstacle(function)
        return found or (_SLOWER if self._sixteen and _has_large_products(function) else "")


def _has_large_products(function: Any) -> bool:
    """Returns whether the mean matrix product of a traced function is large; False: not known."""
    with contextlib.suppress(ValueError):
        return flops.mean_product(function.get_concrete_function().graph) >= _LARGE
    return False


def kept(run_dir: str) -> dict[str, Any] | None:
    """Returns the metadata of the newest checkpoint that can be read, if it is of a step after 0.

    None if there is no such checkpoint: at step 0, another choice changes no result of the run.
    """
    for path in reversed(catalog.list_checkpoints(catalog.newest_directory(run_dir))):
        with contextlib.suppress(DamagedError, ValueError, OSError):
            metadata = catalog.read_metadata(path)
            return metadata if metadata["step"] > 0 else None
    return None
