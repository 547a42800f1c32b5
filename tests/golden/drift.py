"""Measures how far the golden losses vary with the environment: python -m tests.golden.drift

Each setting runs in a separate process, because TensorFlow reads settings once. The last line is
for runs whose initial weights differ by a few roundings, as the weights on another machine do after
a few steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.golden import runs
from tests.golden.place import places

TRIALS = 16
ONE_CORE = ("taskset", "-c", "0")
SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "as it is": ((), {}),
    "the same again": ((), {}),
    "one core": (ONE_CORE, {}),
    "1 thread an operation": ((), {"TF_NUM_INTRAOP_THREADS": "1"}),
    "4 threads an operation": ((), {"TF_NUM_INTRAOP_THREADS": "4"}),
    "1 operation at a time": ((), {"TF_NUM_INTEROP_THREADS": "1"}),
    "without oneDNN": ((), {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "without oneDNN, one core": (ONE_CORE, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "oneDNN on AVX2": ((), {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "oneDNN on SSE4.1": ((), {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
}


def trials(count: int) -> dict[str, list[list[float]]]:
    """Trains the golden runs; returns, by name, the losses of a run and those of perturbed runs.

    The first list holds the losses of the run itself, the next `count` lists those of runs with
    perturbed initial weights.
    """
    with places() as where:
        return {
            name: [runs.losses(name, nudge=nudge, **where) for nudge in range(count + 1)]
            for name in runs.RUNS
        }


def elsewhere(
    prefix: tuple[str, ...], environment: dict[str, str], count: int
) -> dict[str, list[list[float]]]:
    """Returns the result of `trials`, run in a subprocess.

    Args:
      prefix: command that runs the subprocess, such as `ONE_CORE`; (): none.
      environment: additional environment variables.
      count: argument of `trials`.

    Raises:
      subprocess.CalledProcessError: if the subprocess fails.
    """
    ran = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.golden.drift", str(count)],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> int:
    """Prints a table, and returns 0.

    A row has, for each golden run, the largest relative difference of a setting's losses from those
    without a setting.
    """
    print(f"{'':28}" + "".join(f"{name:>12}" for name in runs.RUNS))
    base = elsewhere((), {}, TRIALS)

    def line(setting: str, found: dict[str, list[list[float]]]) -> None:
        drifts = [
            max(runs.drift(trial, base[name][0]) for trial in found[name]) for name in runs.RUNS
        ]
        print(f"{setting:28}" + "".join(f"{drift:12.1e}" for drift in drifts), flush=True)

    for setting, how in SETTINGS.items():
        line(setting, elsewhere(*how, 0))
    line(f"nudged, {TRIALS} trials", base)
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(trials(int(sys.argv[1]))))
    else:
        sys.exit(main())
