"""Serves the engine's evaluation of MNIST's test split as a benchmark contender.

    python -m benchmarks.engine_evaluation W1 DATA_DIR [--OPTION=VALUE ...]

A step is a pass over MNIST's test split; see benchmarks/serve.py.
"""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING, Any

from benchmarks.engine_loop import config_of
from benchmarks.serve import serve
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from engine.assembly.parts import Parts


def serve_passes(parts: Parts) -> None:
    """Serves passes over the test split of a run through benchmarks/serve.py."""
    import tensorflow as tf

    import engine

    evaluation, means = parts.evaluations["test"], {}

    def take(passes: int) -> None:
        for _ in range(passes):
            means.update(evaluation.run() or {})

    def final() -> dict[str, Any]:
        return means

    take(2)
    serve(take, {"tapeline": engine.__version__, "tensorflow": tf.__version__}, final)


def main() -> None:
    """Serves requests for evaluation passes through benchmarks/serve.py."""
    from engine.assembly.parts import assemble

    workload, data_dir, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as run_dir:
        config = config_of(
            WORKLOADS[workload], data_dir, run_dir, "--test_split=test", "--progress=off", *options
        )
        parts = assemble(config)
        serve_passes(parts)
        parts.close()


if __name__ == "__main__":
    main()
