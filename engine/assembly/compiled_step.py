"""Examines whether XLA should compile the steps of a run with user-defined parts, for `--jit=auto`.

A checkpoint keeps the result, and a resumed run uses it: another version of TensorFlow or of
Tapeline might find another one, and XLA rounds differently.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pipelines
from engine.assembly import device_memory
from engine.checkpoint import catalog
from engine.checkpoint.checkpoint_file import DamagedError
from engine.config.schema import Config
from engine.core import compilable, xla
from engine.core.step import Step
from engine.runtime import user_code

KEY = "jit_obstacle"  # of the metadata of a checkpoint
# Modes that train; the others compute no training step.
_MODES = ("train", "benchmark", "tune", "verify", "inspect")
_OLDER = "the run was started by a version that compiled no steps with user-defined parts"
_CHANGED = "a user's file has changed, and XLA does not compile all operations of the step"


class StepExamination:
    """Callable that returns what speaks against compiling the steps of a run; "" if nothing does.

    It is `obstacle` of `xla.choose`, which calls it only where the choice depends on it.

    Args:
      config: options of the run.
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

    def __call__(self) -> str:
        """Returns the obstacle, by a look at the graph unless the run has kept what was found."""
        if self._mode not in _MODES or not xla.is_own(self._step.optimizer):
            return xla.USER_DEFINED
        if self._kept is not None and KEY not in self._kept:
            return _OLDER
        if self.result is None:
            self.result = self._examined()
        elif not self.result and self._kept and self._kept.get("load") != user_code.digests():
            return self._examined() and _CHANGED
        return self.result

    def _examined(self) -> str:
        batch = device_memory.batch_spec(self._source, self._rows)
        return compilable.obstacle(device_memory.gradients_of(self._step), batch)


def kept(run_dir: str) -> dict[str, Any] | None:
    """Returns the metadata of the newest checkpoint that can be read, if it is of a step after 0.

    None if there is no such checkpoint: at step 0, another choice changes no result of the run.
    """
    for path in reversed(catalog.list_checkpoints(catalog.newest_directory(run_dir))):
        with contextlib.suppress(DamagedError, ValueError, OSError):
            metadata = catalog.read_metadata(path)
            return metadata if metadata["step"] > 0 else None
    return None
