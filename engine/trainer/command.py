"""Trains a run: `--mode=train`."""

from __future__ import annotations

import contextlib

from engine.assembly import out_of_memory
from engine.assembly.parts import assemble
from engine.config import compatibility
from engine.config.schema import Config
from engine.distributed.cluster import Cluster
from engine.distributed.collectives import HostCollectives
from engine.runtime.errors import EvaluationError, StepError
from engine.runtime.lock import RunLock
from engine.runtime.signals import Signals
from engine.runtime.startup import Startup
from engine.trainer.compilation_cache import CompilationCache
from engine.trainer.trainer import Trainer


def train(config: Config, before: Config | None, startup: Startup, cluster: Cluster) -> int:
    """Trains a new run or resumes one, and writes result.json.

    Args:
      config: all options.
      before: options of the run to resume; None for a new run.
      startup: startup timings, which include the time before this call.
      cluster: cluster of the workers; only the chief writes files.

    Returns:
      The exit status: 0 if the run is finished; 128 + the signal number, such as 130 or 143, if a
      signal was received. A signal during training stops it after a checkpoint is saved; one after
      the last step stops the final evaluation.

    Raises:
      ValueError: for invalid options, data or user code. Nothing has been written, unless damaged
        data or an error in user code is found after the first step.
      OSError: if a file cannot be read or written, or no checkpoint of the run can be loaded.
      OutOfMemoryError: if a device runs out of memory; the message says what to reduce.
      RuntimeError: if TensorFlow fails, or for more bad steps than the run may skip.
    """
    collectives = HostCollectives(cluster)
    with RunLock(config.run.run_dir, taken=collectives.is_chief) as lock:
        programs = CompilationCache(config)
        with programs.enabled():
            parts = assemble(config, collectives=collectives, startup=startup)
        compatibility.check_length_options(config, parts.total_steps)
        with Signals() as signals:
            trainer = Trainer(parts, signals, startup, collectives, programs)
            try:
                with contextlib.closing(trainer):
                    trainer.start(lock, before)
                    trainer.train()
                    trainer.finish()
            except (StepError, EvaluationError) as error:
                if (lack := out_of_memory.explained(error, parts)) is not None:
                    raise lack from error
                raise
            return signals.exit_status
