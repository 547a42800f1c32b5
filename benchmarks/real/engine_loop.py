"""Serves a training run of the engine on W5 to W8 as a benchmark contender.

    python -m benchmarks.real.engine_loop W6 float32 [--OPTION=VALUE ...]   see benchmarks/serve.py

As in benchmarks/engine_loop.py, the run is that of the command line, with metrics, log points,
checkpoints at the ends of epochs and the progress bar.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from engine.runtime.startup import Startup, import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

import engine  # noqa: E402
from benchmarks.real import specs  # noqa: E402
from benchmarks.real.serving import final_of  # noqa: E402
from benchmarks.serve import serve  # noqa: E402
from engine.assembly.parts import Parts, assemble  # noqa: E402
from engine.config import flags  # noqa: E402
from engine.distributed.collectives import HostCollectives  # noqa: E402
from engine.runtime.lock import RunLock  # noqa: E402
from engine.runtime.signals import Signals  # noqa: E402
from engine.trainer.trainer import Trainer  # noqa: E402


@contextlib.contextmanager
def training(spec: specs.Spec, precision: str, *options: str) -> Iterator[tuple[Trainer, Parts]]:
    """Starts a training run of a workload, without validation and testing, in a `with` block.

    Args:
      spec: what to train.
      precision: "float32" or "bfloat16".
      *options: further command-line options, which have precedence.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        config = flags.parse(
            [
                "--dataset=real_examples",
                f"--dataset.workload={spec.name}",
                f"--dataset.examples={spec.examples}",
                "--validation_split=0",
                "--test_split=",
                f"--seed={specs.SEED}",
                "--epochs=1000000",
                "--progress=on",
                "--log_every=100",
                f"--run_dir={run_dir}/run",
                f"--cache_dir={run_dir}/cache",
                *specs.options(spec, precision),
                *options,
            ]
        )
        with RunLock(config.run.run_dir, taken=True) as lock, Signals() as signals:
            parts = assemble(config)
            trainer = Trainer(parts, signals, Startup(), HostCollectives())
            trainer.start(lock, None)
            yield trainer, parts
            trainer.close()


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    name, precision, *options = sys.argv[1:]
    with training(specs.SPECS[name], precision, *options) as (trainer, parts):
        trainer.train(until=1)

        def take(steps: int) -> None:
            trainer.train(until=int(parts.state.step) + steps)

        def final() -> dict[str, Any]:
            if set(parts.traces.values()) != {1}:
                raise RuntimeError(f"traced again: {parts.traces}")
            return {**final_of(None), "jit": parts.jit}

        serve(take, {"tapeline": engine.__version__, "tensorflow": tf.__version__}, final)


if __name__ == "__main__":
    main()
