"""Serves a training run of the engine as a benchmark contender.

The run has metrics, log points, checkpoints at the ends of epochs and the progress bar, like a run
of the command line. The run stops after each requested block of steps.

    python -m benchmarks.engine_loop W1 DATA_DIR [--OPTION=VALUE ...]   see benchmarks/serve.py
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from benchmarks.workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload
from engine.assembly import automatic_options
from engine.runtime import onednn
from engine.runtime.startup import Startup, import_tensorflow

if __name__ == "__main__":  # oneDNN is on or off as the command chooses for the workload
    automatic_options.prepare([*WORKLOADS[sys.argv[1]].options, *sys.argv[3:], "--mode=benchmark"])
import_tensorflow()

import tensorflow as tf  # noqa: E402

import engine  # noqa: E402
from benchmarks.serve import serve  # noqa: E402
from engine.assembly.parts import assemble  # noqa: E402
from engine.config import flags  # noqa: E402
from engine.config.schema import Config  # noqa: E402
from engine.core.state import weights_sha256  # noqa: E402
from engine.distributed.collectives import HostCollectives  # noqa: E402
from engine.runtime.lock import RunLock  # noqa: E402
from engine.runtime.signals import Signals  # noqa: E402
from engine.trainer.trainer import Trainer  # noqa: E402


def config_of(workload: Workload, data_dir: str, run_dir: str, *options: str) -> Config:
    """Returns the configuration of a training run of a workload, without validation and testing.

    Args:
      workload: what to train.
      data_dir: directory in which MNIST is prepared.
      run_dir: directory of the run.
      *options: further command-line options, which have precedence.
    """
    return flags.parse(
        [
            "--dataset=mnist",
            f"--data_dir={data_dir}",
            f"--train_split=train[:{EXAMPLES[workload.batch]}]",
            "--validation_split=0",
            "--test_split=",
            "--optimizer=adam",
            f"--learning_rate={RATE}",
            f"--seed={SEED}",
            "--epochs=1000000",
            "--progress=on",
            "--log_every=100",
            f"--run_dir={run_dir}",
            *workload.options,
            *options,
        ]
    )


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload, data_dir, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as run_dir:
        config = config_of(WORKLOADS[workload], data_dir, run_dir, *options)
        with RunLock(run_dir, taken=True) as lock, Signals() as signals:
            parts = assemble(config)
            trainer = Trainer(parts, signals, Startup(), HostCollectives())
            trainer.start(lock, None)
            trainer.train(until=1)

            def take(steps: int) -> None:
                trainer.train(until=int(parts.state.step) + steps)

            def final() -> Any:
                if set(parts.traces.values()) != {1}:
                    raise RuntimeError(f"traced again: {parts.traces}")
                return weights_sha256(parts.model)

            versions = {"tapeline": engine.__version__, "tensorflow": tf.__version__}
            versions["oneDNN"] = onednn.state()
            serve(take, versions, final)
            trainer.close()


if __name__ == "__main__":
    main()
