"""Serves the engine's evaluation of the networks of W5 to W8 as a benchmark contender.

    python -m benchmarks.real.engine_evaluation W6 4096 [--OPTION=VALUE ...]

A step is a pass over that many examples, after those of a training batch, with the weights of
`arrays.initial`; see benchmarks/serve.py.
"""

from __future__ import annotations

import sys
import tempfile

from engine.runtime.startup import import_tensorflow

import_tensorflow()

from benchmarks.engine_evaluation import serve_passes  # noqa: E402
from benchmarks.real import arrays, engine_weights, specs  # noqa: E402
from benchmarks.real.specs import Spec  # noqa: E402
from engine.assembly.parts import Parts, assemble  # noqa: E402
from engine.config import flags  # noqa: E402


def assembled(spec: Spec, examples: int, run_dir: str, *options: str) -> Parts:
    """Returns the parts of a run of a workload that is tested on some examples.

    Args:
      spec: the workload.
      examples: number of examples.
      run_dir: directory of the run and of its cache.
      *options: further command-line options, which have precedence.
    """
    parts = assemble(
        flags.parse(
            [
                "--dataset=real_examples",
                f"--dataset.workload={spec.name}",
                f"--dataset.examples={spec.batch + examples}",
                f"--train_split=train[:{spec.batch}]",
                f"--test_split=train[{spec.batch}:]",
                "--validation_split=0",
                "--progress=off",
                f"--run_dir={run_dir}/run",
                f"--cache_dir={run_dir}/cache",
                *specs.options(spec, "float32"),
                *options,
            ]
        )
    )
    engine_weights.assign(parts.model, arrays.initial(spec))
    return parts


def main() -> None:
    """Serves requests for evaluation passes through benchmarks/serve.py."""
    name, examples, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as run_dir:
        parts = assembled(specs.SPECS[name], int(examples), run_dir, *options)
        serve_passes(parts)
        parts.close()


if __name__ == "__main__":
    main()
