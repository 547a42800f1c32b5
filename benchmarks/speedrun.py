"""Measures the training time of recipes/mnist_speedrun.flags to 99% on MNIST, on two cores.

    python -m benchmarks.speedrun --data_dir=DATA_DIR
    python -m benchmarks.speedrun --data_dir=DATA_DIR --keras

Trains once for each seed, each in a separate process, and writes the table. The exit status is 1,
with one line that says why, if the mean accuracy or the mean time misses the goal, or a run fails.
Seconds are of training only: without loading the data, tracing and evaluation. With --keras, each
seed is also trained by Keras's `fit` with the network and settings of recipes/seed_003.flags, until
the first epoch with 99% on test; this needs

    python -m benchmarks.environments .benchmarks
    python -m benchmarks.data DATA_DIR .benchmarks/mnist.npz

and takes 15 minutes. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rounds, trainings
from benchmarks.rounds import HERE
from benchmarks.trainings import RunError

RECIPE = HERE.parent / "recipes" / "mnist_speedrun.flags"
ACCURACY = 0.99  # minimum of the mean test accuracy over seeds
SECONDS = 5.0  # maximum of the mean training time over seeds
CORES = 2


def misses(accuracies: Sequence[float], seconds: Sequence[float]) -> list[str]:
    """Returns a message for each missed goal.

    Args:
      accuracies: test accuracy of each seed, from 0 to 1.
      seconds: training time of each seed.
    """
    # The comparisons count NaN as a miss, and so does the mean of an empty list.
    missed = []
    accuracy = sum(accuracies) / max(len(accuracies), 1)
    if not accuracy >= ACCURACY:
        missed.append(f"mean test accuracy {accuracy:.3%}, at least {ACCURACY:.1%} is wanted")
    mean = sum(seconds) / len(seconds) if seconds else float("inf")
    if not mean <= SECONDS:
        missed.append(f"mean training time {mean:.2f} s, at most {SECONDS:g} s is wanted")
    return missed


def measured(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the test accuracy and training time of a run.

    Args:
      result: content of result.json.

    Returns:
      A dict: "accuracy" on the test split; "steps"; "seconds", the number of steps divided by
      `steps_per_second`, which excludes evaluation and the first call of the loop; and
      "train_seconds", which includes that call.

    Raises:
      RunError: the result has no test accuracy or no steps per second.
    """
    test, rate = result.get("test"), result.get("steps_per_second")
    if not test or not rate:
        raise RunError("result.json tells no test accuracy or no steps per second")
    return {
        "accuracy": test["accuracy"],
        "seconds": result["step"] / rate,
        "steps": result["step"],
        "train_seconds": result["train_seconds"],
    }


def train(data_dir: str, seed: int) -> dict[str, Any]:
    """Trains with the speedrun recipe.

    Returns:
      The dict of `measured`, with the package versions under "versions".

    Raises:
      RunError: the training fails.
    """
    result = trainings.train(RECIPE, data_dir, seed, f"seed {seed}").result
    try:
        return measured(result) | {"versions": result["versions"]}
    except RunError as error:
        raise RunError(f"seed {seed}: {error}") from None


def train_with_keras(place: Path, seed: int) -> dict[str, Any]:
    """Trains with Keras's `fit` until the first epoch that reaches `ACCURACY`.

    Returns:
      The JSON that peers/keras_until.py prints, with the number of "epochs", and "reached": whether
      an epoch reached the accuracy.

    Raises:
      RunError: the training fails.
    """
    given = (str(seed), str(ACCURACY))
    found = trainings.train_with_keras(place, "keras_until.py", *given, who=f"Keras, seed {seed}")
    return found | {
        "epochs": len(found["seconds"]),
        "reached": max(found["accuracies"]) >= ACCURACY,
    }


def collected(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains with each seed and returns a dict for each: "seed" and the results of `train`.

    With `args.keras`, Keras trains with the same seed afterwards; its results are under "keras".

    Raises:
      RunError: a training fails.
    """
    found = []
    for seed in range(args.rounds):
        run: dict[str, Any] = {"seed": seed} | train(args.data_dir, seed)
        words = f"accuracy {run['accuracy']:.2%} in {run['seconds']:.2f} s"
        if args.keras:
            run["keras"] = train_with_keras(args.place, seed)
            words += f"; Keras {_epochs(run['keras'])} in {sum(run['keras']['seconds']):.1f} s"
        print(f"  seed {seed} of {args.rounds}: {words}", flush=True)
        found.append(run)
    return found


def _epochs(keras: dict[str, Any]) -> str:
    return f"{keras['epochs']} epochs" + ("" if keras["reached"] else ", not reached")


def ratios(runs: list[dict[str, Any]]) -> list[float]:
    """Returns Keras's training time divided by the recipe's, for each seed; [] without Keras."""
    return [sum(run["keras"]["seconds"]) / run["seconds"] for run in runs if "keras" in run]


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of the table: a row for each seed, and means with standard deviations."""
    with_keras = bool(ratios(runs))
    more = " Keras: epochs | test accuracy | seconds | times as long |" if with_keras else ""
    yield f"| seed | test accuracy | seconds |{more}"
    yield "|---|---|---|" + "---|" * (4 if with_keras else 0)
    for run in runs:
        row = f"| {run['seed']} | {run['accuracy']:.2%} | {run['seconds']:.2f} |"
        if keras := run.get("keras"):
            took = sum(keras["seconds"])
            row += f" {_epochs(keras)} | {keras['accuracies'][-1]:.2%} | {took:.1f} |"
            row += f" {took / run['seconds']:.1f} |"
        yield row
    accuracies = [100 * run["accuracy"] for run in runs]
    row = f"| mean | {_spread(accuracies, 2)} | {_spread([run['seconds'] for run in runs], 2)} |"
    if with_keras:
        epochs = [run["keras"]["epochs"] for run in runs]
        last = [100 * run["keras"]["accuracies"][-1] for run in runs]
        row += f" {_spread(epochs, 1)} | {_spread(last, 2)} |"
        row += f" {_spread([sum(run['keras']['seconds']) for run in runs], 1)} |"
        row += f" {_spread(ratios(runs), 1)} |"
    yield row


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def text(results: dict[str, Any]) -> list[str]:
    """Returns the lines of SPEEDRUN.md for the content of speedrun.json."""
    machine, runs, missed = results["machine"], results["runs"], results["missed"]
    versions = runs[0]["versions"] | runs[0].get("keras", {}).get("versions", {})
    lines = [
        "# Speedrun",
        "",
        f"Written by `{results['command']}`, {results['date']}: recipes/mnist_speedrun.flags, "
        f"trained once a seed. The raw figures are in {results['raw']}.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "",
        "Seconds are of training alone: the data in memory, the graph traced, tests left out. "
        "The last row has means and standard deviations.",
    ]
    if ratios(runs):
        lines[-1] += (
            " Beside it Keras `fit`, at its defaults, with the network and settings of "
            f"recipes/seed_003.flags, until its first epoch at {ACCURACY:.1%} on test (15 epochs "
            "at most), timed likewise and in turn."
        )
    goal = f"mean test accuracy at least {ACCURACY:.1%}, mean training time at most {SECONDS:g} s"
    lines += ["", *table(runs), "", f"The goal, {goal}: {'MISSED' if missed else 'reached'}."]
    return lines


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark on two CPU cores, and writes and prints the results.

    On a system without `os.sched_setaffinity`, such as macOS, all cores are used. Returns 1 if an
    option is invalid, a training fails or a goal is missed, otherwise 0.

    Args:
      given: command-line arguments; None: those of the process.
    """
    args = trainings.parser("speedrun", __doc__, seeds=10, out=HERE).parse_args(given)
    if why := trainings.refusal(args):
        return trainings.failed(why)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    results = rounds.begun("speedrun", "speedrun.json", args)
    results["command"] += " --keras" * args.keras
    try:
        results["runs"] = collected(args)
    except RunError as error:
        return trainings.failed(str(error))
    runs = results["runs"]
    missed = misses([run["accuracy"] for run in runs], [run["seconds"] for run in runs])
    results["missed"] = missed
    lines = text(results)
    rounds.write(args.out, results, "SPEEDRUN.md", lines)
    print("\n".join(lines[8:]), flush=True)
    return trainings.failed("; ".join(missed)) if missed else 0


if __name__ == "__main__":
    sys.exit(main())
