"""Kills runs at random instants, resumes each, and compares it with an uninterrupted run.

    python -m tests.chaos --kills=200 --seed=1
    python -m tests.chaos --kills=50 --signal=TERM --virtual_devices=2 --feed=stream
    python -m tests.chaos --sweep=2
    python -m tests.chaos --kills=20 -- --evaluate_every=7 --validation_split=a=0.1,b=0.1

Weights, curves, TensorBoard's points, decisions and the state in the checkpoints must be bitwise
equal; only measurements of time may differ. The exit status is 1 if any run differs.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from engine.runtime.startup import import_tensorflow


def main() -> int:
    """Runs the selected kills; returns 1 if any resumed run differs, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=200, help="in all (default 200)")
    parser.add_argument(
        "--sweep", type=int, default=0, help="not at random: the first so many times at each place"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default 0)")
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--virtual_devices", type=int, default=0, help="replicas on the CPU")
    parser.add_argument("--feed", choices=("resident", "stream"), default="resident")
    parser.add_argument("options", nargs="*", help="after --: further options of the training")
    asked = parser.parse_args()
    import_tensorflow()
    from tests.chaos.ordeal import Ordeal

    place, parent = tempfile.mkdtemp(prefix="tapeline-chaos-"), os.getpid()
    try:
        ordeal = Ordeal(
            Path(place),
            signal_name=asked.signal,
            seed=asked.seed,
            options=[
                f"--virtual_devices={asked.virtual_devices}",
                f"--feed={asked.feed}",
                *asked.options,
            ],
        )
        tell = functools.partial(print, flush=True)
        failures = ordeal.sweep(asked.sweep, tell) if asked.sweep else ordeal.go(asked.kills, tell)
    finally:
        if os.getpid() == parent:  # forked children pass here as well and must not delete it
            shutil.rmtree(place)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
