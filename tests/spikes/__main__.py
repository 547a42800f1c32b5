"""Tests `--spike=10`: trains runs without a fault, and each again with one faulty step.

    python -m tests.spikes --data_dir=DATA_DIR
    python -m tests.spikes --data_dir=DATA_DIR --only=quickstart --json=FILE

A run without a fault must skip no step. A faulty run multiplies the inputs of a random step by
1,000 where the median of the losses before it is 0.1 or more, or shuffles the labels of a random
step where the median is below: that step must be skipped, and no other. A fault has no effect if no
step is skipped, the loss is no higher than that of guessing, and the gradient norm is no larger
than the largest before in the run without a fault. Then another step is drawn; the table counts
these faults. The exit status is 1 if a run fails. Takes 15 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.runtime.startup import import_tensorflow


def main() -> int:
    """Runs the selected trials and prints a table; returns 1 if a trial fails, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.spikes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_dir", default="", help="where MNIST is prepared")
    parser.add_argument("--seed", type=int, default=0, help="that the instants are drawn by")
    parser.add_argument("--only", default="", help="trials whose name contains this")
    parser.add_argument("--json", default="", help="a file for all of it")
    asked = parser.parse_args()
    import_tensorflow()
    from tests.spikes.trial import LOUD, SHUFFLED, TRIALS, run, strike

    rows: list[dict[str, Any]] = []
    chosen = [(n, trial) for n, trial in enumerate(TRIALS) if asked.only in trial.name]
    started = time.monotonic()
    print(f"{'run':<40} {'sound':>8}  {'then goes wrong':<30} {'loss':>17}  found")
    with tempfile.TemporaryDirectory(prefix="tapeline-spikes-") as folder:
        place = Path(folder)
        common = [f"--cache_dir={place / 'cache'}"]
        common += [f"--data_dir={asked.data_dir}"] if asked.data_dir else []
        for number, trial in chosen:
            sound = run(trial, place / f"sound-{number}", common)
            kind = (SHUFFLED, LOUD)[(number + asked.seed) % 2]
            drawn_by = 1000 * asked.seed + number
            struck = strike(
                trial, sound, place / f"struck-{number}", common, seed=drawn_by, kind=kind
            )
            rows.append(
                {
                    "run": trial.name,
                    "sound_left_out": sound.left_out,
                    "sound_error": sound.error,
                    "fault": struck.fault.kind,
                    "step": struck.fault.step,
                    "median_loss_before": struck.before,
                    "loss": struck.loss,
                    "gradient_norm": struck.norm,
                    "longest_sound_gradient": float(sound.norms.max()),
                    "left_out": struck.outcome.left_out,
                    "error": struck.outcome.error,
                    "unseen": [fault.step for fault in struck.unseen],
                    "passed": struck.passed and not sound.left_out and not sound.error,
                    "seconds": sound.seconds + struck.outcome.seconds,
                }
            )
            clean = "nothing" if not sound.left_out else str(sound.left_out)
            found = "that step" if struck.passed else f"{struck.outcome.left_out}"
            found += f" ({len(struck.unseen)} unseen before)" if struck.unseen else ""
            print(
                f"{trial.name:<40} {clean:>8}  "
                f"{f'{struck.fault.kind}, step {struck.fault.step}':<30} "
                f"{struck.before:>7.2g} to {struck.loss:>6.1f}  {found}",
                flush=True,
            )
    clean = sum(not row["sound_left_out"] and not row["sound_error"] for row in rows)
    alone = sum(row["left_out"] == [row["step"]] and not row["error"] for row in rows)
    unseen = sum(len(row["unseen"]) for row in rows)
    print(
        f"{clean} of {len(rows)} sound runs left out nothing; {alone} of {len(rows)} with a fault "
        f"left out that step and no other; {unseen} faults did not show; "
        f"{time.monotonic() - started:.0f} s"
    )
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
