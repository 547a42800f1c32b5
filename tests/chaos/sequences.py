"""Checks sequences of commands: only the last command on a run directory determines the run.

    python -m tests.chaos.sequences --sequences=300 --seed=0

A sequence is a few commands on one run directory, each with a random length (`--epochs` or
`--train_steps`), some of them stopped by SIGTERM or SIGKILL. Each must end within `HANG` seconds. A
command that succeeds must leave bitwise the weights, curves, decisions and checkpoints of an
uninterrupted run of the same command in a new directory. A command that is refused must print one
line that names the option, exit with status 2, and change nothing. The exit status is 1 at the
first sequence that fails.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.chaos.children import Children
from tests.chaos.victim import Ended
from tests.sameness import differences

HANG = 120.0  # seconds: a hundred times the duration of a command on an idle machine
PER_EPOCH = 9  # steps: 144 examples in batches of 16
OPTIONS = (
    "--dataset=digits",
    "--train_split=train[:160]",
    "--test_split=test[:50]",
    "--global_batch_size=16",
    "--model=logistic",
    "--progress=off",
    "--report=false",
)
SCHEDULES = (
    (),
    ("--warmup_steps=5",),
    ("--schedule=step", "--decay_steps=15"),
    ("--schedule=exponential",),
    ("--schedule=cosine",),
    ("--schedule=one_cycle",),
    ("--schedule=plateau", "--plateau_patience=0", "--decay_rate=0.5", "--learning_rate=0.1"),
)
STOPPING = (
    (),
    ("--monitor=train_loss", "--patience=1", "--min_delta=0.05"),
    ("--patience=1",),
    ("--patience=2", "--min_delta=0.05", "--restore_best"),
    ("--validation_split=0", "--patience=1", "--learning_rate=0.5"),
)
EVALUATIONS = (
    (),
    (),
    ("--evaluate_every=7",),
    ("--evaluate_every=4", "--evaluate_at_start"),
    ("--evaluate_at_start", "--evaluation_views=flip,shift:1"),
    ("--evaluate_every=25", "--ema=0.9", "--accumulate=2"),
    (
        *("--evaluate_every=7", "--validation_split=a=0.05,b=0.05,c=test[50:80]"),
        "--evaluation_examples=6",
    ),
)
OTHERS = (
    (),
    ("--jit=off",),
    ("--log_every=4", "--jit=off", "--recompute=layers/*"),
    ("--log_every=9", "--checkpoint_every=5", "--jit=off"),
    ("--leave_out=3,17", "--jit=off"),
    ("--augment=crop,randaugment:1:9,color_jitter:0.3:0.3,cutmix,mixup", "--checkpoint_every=5"),
    ("--spike=2", "--most_left_out=128", "--checkpoint_every=4", "--jit=off"),
    ("--feed=stream", "--jit=off"),
    ("--keep=2", "--checkpoint_every=2", "--steps_per_loop=3", "--jit=off"),
    ("--keep_best=3", "--checkpoint_every=5", "--jit=off"),
)


class Command(NamedTuple):
    """One command of a sequence.

    Attributes:
      length: option for the number of epochs or steps, such as "--epochs=3".
      signal: "" (none), "TERM" or "KILL".
      seconds: time from the start to the signal.
    """

    length: str
    signal: str = ""
    seconds: float = 0.0


LENGTHS = st.one_of(
    st.integers(1, 7).map("--epochs={}".format),
    st.integers(1, 7 * PER_EPOCH).map("--train_steps={}".format),
)
COMMANDS = st.builds(
    Command, LENGTHS, st.sampled_from(["", "", "TERM", "KILL"]), st.floats(0.0, 2.0)
)
SEQUENCES = st.tuples(
    st.sampled_from(SCHEDULES),
    st.sampled_from(STOPPING),
    st.sampled_from(EVALUATIONS),
    st.sampled_from(OTHERS),
    st.lists(COMMANDS, min_size=1, max_size=4),
    LENGTHS,
)


class Property:
    """Checker of sequences of commands, which checks the run after each command.

    Args:
      place: directory of the runs.
      children: runner of the commands.

    Attributes:
      outcomes: number of commands by outcome: "refused", "ended" or "stopped by SIGNAL".
    """

    def __init__(self, place: Path, children: Children) -> None:
        self._place, self._children = place, children
        self._numbers = itertools.count()
        self.outcomes: Counter[str] = Counter()

    def check(self, options: list[str], commands: list[Command]) -> None:
        """Runs the commands of a sequence one after the other, and checks the run after each.

        Args:
          options: options of all commands of the sequence.
          commands: the commands.

        Raises:
          AssertionError: if a command hangs, or the run is not as the module describes.
        """
        number = next(self._numbers)
        run_dir, alone = self._place / f"run-{number}", self._place / f"alone-{number}"
        for command in commands:
            before = contents(run_dir)
            number_of = int(signal.Signals[f"SIG{command.signal}"]) if command.signal else 0
            ended = self._run(options, command, run_dir, number_of)
            told = f"{options} {commands}: at {command}: status {ended.status}\n{ended.said}"
            assert not ended.hung, f"hangs: {told}"
            if ended.status == 2:
                self.outcomes["refused"] += 1
                lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
                assert len(lines) == 1 and ended.said.splitlines()[-1] == lines[0], told
                assert "Traceback" not in ended.said, told
                assert any(each in lines[0] for each in ("--epochs", "--train_steps", "steps")), (
                    told
                )
                assert contents(run_dir) == before, f"a refusal changed something: {told}"
            elif ended.status == 0:
                self.outcomes["ended"] += 1
                shutil.rmtree(alone, ignore_errors=True)
                untouched = self._run(options, command._replace(signal=""), alone, 0)
                assert untouched.status == 0, f"alone: {untouched.said}"
                found = differences(alone, run_dir)
                assert not found, f"{found}: {told}"
            else:
                self.outcomes[f"stopped by {command.signal or 'nothing'}"] += 1
                assert command.signal and ended.status in (-number_of, 128 + number_of), told
        for each in (run_dir, alone):
            shutil.rmtree(each, ignore_errors=True)

    def _run(self, options: list[str], command: Command, run_dir: Path, number: int) -> Ended:
        arguments = [
            *(*OPTIONS, *options, command.length),
            *(f"--cache_dir={self._place / 'cache'}", f"--run_dir={run_dir}"),
        ]
        return self._children.run(arguments, number, command.seconds if number else None)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder, by relative path; {} without a folder.

    The lock file is excluded: a kill leaves it, and the next command removes it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(sequences: int, number: int, place: Path, *, tell: bool = False) -> Property:
    """Checks random sequences; returns the `Property` with the outcomes.

    Args:
      sequences: number of sequences.
      number: seed of the sequences.
      place: directory of the runs.
      tell: whether to print the progress periodically.

    Raises:
      AssertionError: for the first sequence that fails.
    """
    done = itertools.count(1)
    with Children(place, HANG) as children:
        checked = Property(place, children)

        @seed(number)
        @settings(
            max_examples=sequences,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # shrinking would take many times as long
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(SEQUENCES)
        def each(sequence: tuple) -> None:
            schedule, stopping, evaluations, others, commands, last = sequence
            options = [*schedule, *stopping, *evaluations, *others]
            checked.check(options, [*commands, Command(last)])
            if tell and (count := next(done)) % 10 == 0:
                print(f"{count} of {sequences} sequences: {dict(checked.outcomes)}", flush=True)

        each()
    return checked


def main() -> int:
    """Checks sequences and prints the outcomes; returns 1 if a sequence fails, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.sequences", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sequences", type=int, default=300, help="how many (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="that they are drawn by (default 0)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapeline-sequences-") as place:
        try:
            checked = run(asked.sequences, asked.seed, Path(place), tell=True)
        except AssertionError as error:
            print(f"FAIL {error}")
            return 1
    print(f"PASS: {asked.sequences} sequences; commands: {dict(checked.outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
