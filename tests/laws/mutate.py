"""Breaks each law on purpose, in a copy, and sees its test fail.

    python -m tests.laws.mutate            all of them
    python -m tests.laws.mutate L1 L6      some

A test that cannot fail is worse than none. Exit status 1 when a break goes unnoticed, or when the
code has changed so that a break no longer applies.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Break:
    """One way of breaking a law: in `file`, `old` becomes `new`."""

    law: str
    why: str
    file: str
    old: str
    new: str


BREAKS = (
    Break(
        "L1",
        "a replica divides by its own count",
        "engine/step.py",
        "sums[0] / batch.valid",
        "sums[0] / tf.maximum(sums[-1], 1.0) / 2.0",
    ),
    Break(
        "L1",
        "padding counts as examples",
        "engine/metrics.py",
        "valid = mask > 0",
        "valid = mask > -1",
    ),
    Break(
        "L1",
        "the remainder is dropped",
        "pipelines/order.py",
        "return -(-examples // global_batch_size)",
        "return max(1, examples // global_batch_size)",
    ),
    Break(
        "L3",
        "epochs share one order",
        "pipelines/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([seed])",
    ),
    Break(
        "L3",
        "dropout depends on the replica",
        "engine/step.py",
        "noise=Noise(seed, step, batch.row)",
        "noise=Noise(seed, step, 0 * batch.row)",
    ),
    Break(
        "L3",
        "the seed is forgotten",
        "pipelines/plan.py",
        "return order.permutation(self._seed, epoch, self.examples)",
        "return np.random.permutation(self.examples).astype(np.int32)",
    ),
    Break(
        "L4",
        "the stream starts again at the epoch's begin",
        "pipelines/stream.py",
        "args=(queue, self._reader, plan, step)",
        "args=(queue, self._reader, plan, 0)",
    ),
    Break(
        "L4",
        "the stream reads in file order",
        "pipelines/stream.py",
        "order = plan.order(step // plan.steps_per_epoch)",
        "order = np.arange(plan.examples)",
    ),
    Break(
        "L5",
        "the optimizer's slots are not in the state",
        "engine/state.py",
        "self.optimizer = optimizer",
        "self._slots = lambda: optimizer",
    ),
    Break(
        "L5",
        "the metric sums are not in the state",
        "engine/keeping/checkpoint.py",
        "checkpoint = tf.train.Checkpoint(state=state)",
        "checkpoint = tf.train.Checkpoint(model=state.model, step=state.step)",
    ),
    Break(
        "L6",
        "the number of steps is a Python number",
        "engine/loop.py",
        "self._compiled(tf.constant(steps, tf.int64),",
        "self._compiled(steps,",
    ),
    Break(
        "L7",
        "gradients are not reduced",
        "engine/step.py",
        "*gradients, sums = all_reduce([*gradients, sums])",
        "(sums,) = all_reduce([sums])",
    ),
    Break(
        "L7",
        "batch norm sees one replica",
        "models/batch_norm.py",
        "call.all_reduce(",
        "list(",
    ),
    Break(
        "L8",
        "evaluation counts padding",
        "pipelines/plan.py",
        "tf.cast(valid, tf.float32)",
        "tf.ones_like(valid, tf.float32)",
    ),
    Break(
        "L8",
        "evaluation leaves the last batch out",
        "engine/evaluate.py",
        "step, end = 0, self._feed.steps_per_epoch",
        "step, end = 0, max(1, self._feed.steps_per_epoch - 1)",
    ),
)


def noticed(change: Break) -> bool | None:
    """Whether the law's own test fails under the change; None when it does not apply."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = copy / change.file
        text = path.read_text()
        if text.count(change.old) != 1:
            return None
        path.write_text(text.replace(change.old, change.new))
        tests = sorted(map(str, (copy / "tests" / "laws").glob(f"test_{change.law.lower()}_*.py")))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        ran = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        return ran.returncode == 1


def main(laws: list[str]) -> int:
    """Tries the breaks and says what came of each."""
    failed = 0
    for change in BREAKS:
        if laws and change.law not in laws:
            continue
        seen = noticed(change)
        verdict = {True: "noticed", False: "NOT NOTICED", None: "DOES NOT APPLY"}[seen]
        print(f"{change.law}  {verdict}: {change.why} ({change.file})", flush=True)
        failed += seen is not True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
