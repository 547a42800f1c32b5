"""Trains the first epochs of recipes/cifar10_resnet20.flags, beside the same network in PyTorch.

    python -m benchmarks.first_epochs --data_dir=DATA_DIR --place=DIR [--seeds=3] [--steps=3910]
    python -m benchmarks.first_epochs --data_dir=DATA_DIR --place=DIR --control

In PyTorch, the network has the same initial weights, the same examples in the same order, and the
same crops and flips: see `benchmarks.first_epochs_inputs`. The paper's learning rate is constant
in the first 32,000 steps. Both are tested after each epoch of 391 steps and after the last step.
DIR, from `python -m benchmarks.environments DIR`, has PyTorch's environment. With --control,
PyTorch also trains with the last bit of one initial weight changed: how far rounding alone takes
two trainings apart.

Each training is a process. It is kept as a line of first_epochs.jsonl as soon as it has ended, and
not repeated: the same command continues where it was stopped. The command fails as soon as the
first losses of a seed differ. At the end it writes the table of recipes/README.md and the picture
of the curves. With `--steps=20 --out=DIRECTORY`, it tries all that out; DIRECTORY has a README.md
with both marks.

A training of ten epochs takes 8 minutes on two cores. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import first_epochs_inputs, first_epochs_report, rounds, trainings
from benchmarks.environments import python_of
from benchmarks.first_epochs_report import CONTROL, PYTORCH, TAPELINE, Run
from benchmarks.real.comparison import instructions
from benchmarks.recipes import RECIPES, between
from benchmarks.rounds import HERE
from benchmarks.trainings import RunError

RECIPE = RECIPES / "cifar10_resnet20.flags"
RAW, PICTURE, MARK = "first_epochs.jsonl", "first_epochs.png", "first epochs"
EPOCHS, STEPS = 10, 391  # 391 steps are an epoch
SCRIPT = "torch_resnet20.py"


def options(steps: int) -> list[str]:
    """Returns the options of a training of so many steps, after those of the recipe."""
    return [
        "--schedule=constant",
        f"--train_steps={steps}",
        "--validation_split=test",
        "--test_split=",
        "--log_every=1",
    ]


def train(data_dir: str, seed: int, steps: int) -> Run:
    """Trains with Tapeline; returns a line of first_epochs.jsonl.

    Raises:
      RunError: the training fails.
    """
    trained = trainings.train(RECIPE, data_dir, seed, f"Tapeline, seed {seed}", *options(steps))
    rows, result = trained.rows, trained.result
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    errors = [
        (row["step"], 100 - 100 * row["accuracy"]) for row in rows if row["split"] == "validation"
    ]
    given = " ".join([f"--flagfile=recipes/{RECIPE.name} --seed={seed}", *options(steps)])
    return {
        "command": f"python run.py {given} --data_dir=DATA_DIR",
        "seconds": result["startup_seconds"]["trace"] + result["train_seconds"] / result["goodput"],
        **first_epochs_report.summary(losses, errors),
        "parameters": result["parameters"],
        "versions": result["versions"],
    }


def train_with_torch(args: argparse.Namespace, seed: int, *more: str) -> Run:
    """Trains the same in PyTorch; returns a line of first_epochs.jsonl.

    Args:
      args: options of the command.
      seed: random seed.
      *more: further arguments of the script.

    Raises:
      RunError: the training fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        given = [f"--flagfile={RECIPE}", f"--seed={seed}", f"--data_dir={args.data_dir}"]
        first_epochs_inputs.write([*given, *options(args.steps)], inputs)
        python, script = python_of(args.place, "torch").absolute(), HERE / "peers" / SCRIPT
        arguments = [str(args.steps), *more]
        command = [str(python), str(script), str(inputs), *arguments]
        said = trainings.told(command, f"PyTorch, seed {seed}")
    found = json.loads(next(line for line in reversed(said) if line.startswith("{")))
    return {
        "command": f"python benchmarks/peers/{SCRIPT} inputs.npz {' '.join(arguments)}",
        "seconds": found["seconds"],
        **first_epochs_report.summary(found["losses"], found["errors"]),
        "parameters": found["parameters"],
        "versions": found["versions"],
    }


def kept(path: Path, steps: int) -> list[Run]:
    """Returns the lines of first_epochs.jsonl that are trainings of so many steps."""
    lines = path.read_text().splitlines() if path.exists() else ()
    return [run for run in map(json.loads, lines) if run["steps"] == steps]


def write(out: Path, runs: list[Run]) -> None:
    """Writes the table of the README and the picture to the directory `out`."""
    seeds = len(first_epochs_report.pairs(runs))
    command = f"python -m benchmarks.first_epochs --data_dir=DATA_DIR --seeds={seeds}"
    if any(run["who"] == CONTROL for run in runs):
        command += " --control"
    where = sorted({f"{run['date']}, {run['processor']}" for run in runs})
    made = f"Written by `{command}`; each training is a line of {RAW}. {'; '.join(where)}."
    readme = out / "README.md"
    picture = f"![training losses and test errors of both, each seed, by step]({PICTURE})"
    lines = [made, "", *first_epochs_report.table(runs), "", picture]
    readme.write_text(between(readme.read_text(), MARK, lines))
    first_epochs_report.draw(runs, out / PICTURE)


def refusal(args: argparse.Namespace) -> str:
    """Returns an error message for invalid options; "" if they are valid."""
    python = python_of(args.place, "torch")
    if args.rounds < 1:
        return f"--seeds={args.rounds}: give at least 1"
    least = first_epochs_report.FIRST
    if args.steps < least:
        return f"--steps={args.steps}: give at least {least}, which are compared"
    if not (args.out / "README.md").is_file():
        return f"--out={args.out}: there is no README.md, which the table is written to"
    if not python.exists():
        return f"--place={args.place}: `python -m benchmarks.environments {args.place}` makes it"
    return ""


def main(given: Sequence[str] | None = None) -> int:
    """Trains what is not kept yet, and writes the results; returns 1 for a failure.

    Args:
      given: command-line arguments; None: those of the process.
    """
    parser = trainings.parser("first_epochs", __doc__, seeds=3, out=RECIPES, keras=False)
    parser.add_argument("--steps", type=int, default=EPOCHS * STEPS, help="of each training")
    parser.add_argument("--control", action="store_true", help="PyTorch also beside itself")
    args = parser.parse_args(given)
    if why := refusal(args):
        return trainings.failed(why)
    runs = [run for run in kept(args.out / RAW, args.steps) if run["seed"] < args.rounds]
    machine = rounds.described()
    processor = f"{machine['processor']}, {machine['cores']} cores, {instructions()}"
    try:
        for seed in range(args.rounds):
            for who in (TAPELINE, PYTORCH, *([CONTROL] if args.control else [])):
                if any((run["who"], run["seed"]) == (who, seed) for run in runs):
                    continue
                run: Run = {"who": who, "seed": seed, "steps": args.steps}
                run |= {"date": time.strftime("%Y-%m-%d"), "processor": processor}
                if who == TAPELINE:
                    run |= train(args.data_dir, seed, args.steps)
                else:
                    run |= train_with_torch(args, seed, *(["bit"] if who == CONTROL else []))
                runs.append(run)
                trainings.keep(args.out / RAW, run)
                error = run["epochs"][-1][1]
                print(f"  {who}, seed {seed}: {error:.2f} %, {run['seconds']:.0f} s", flush=True)
            for pair in first_epochs_report.pairs(runs):
                if why := first_epochs_report.disagreement(pair):
                    return trainings.failed(why)
    except RunError as error:
        return trainings.failed(str(error))
    write(args.out, runs)
    print("\n".join(first_epochs_report.table(runs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
