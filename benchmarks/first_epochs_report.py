"""Table and picture of `benchmarks.first_epochs`, from the lines of first_epochs.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TAPELINE, PYTORCH = "Tapeline", "PyTorch"
CONTROL = "PyTorch, one bit changed"  # that of an initial weight
FIRST, TOLERANCE = 5, 1e-4  # so many losses of both agree so closely, over PyTorch's
SMOOTH = 10  # steps of a point of a curve

Run = dict[str, Any]  # a line of first_epochs.jsonl


def summary(losses: Sequence[float], errors: Iterable[Sequence[float]]) -> Run:
    """Returns what is kept of a training.

    Args:
      losses: loss of each step.
      errors: number of steps and test error in percent, of each test.

    Returns:
      A dict: "first", the first losses; "curve", [step, mean loss of the SMOOTH steps up to it];
      "epochs", [step, test error, mean loss since the test before].
    """
    steps, epochs = [], []
    for end in [*range(SMOOTH, len(losses), SMOOTH), len(losses)]:
        start = steps[-1][0] if steps else 0
        steps.append([end, float(np.mean(losses[start:end]))])
    for step, error in errors:
        start = epochs[-1][0] if epochs else 0
        epochs.append([step, error, float(np.mean(losses[start:step]))])
    return {"first": list(losses[: 10 * FIRST]), "curve": steps, "epochs": epochs}


def pairs(runs: Iterable[Run], who: str = TAPELINE) -> list[tuple[Run, Run]]:
    """Returns the trainings by `who` and PyTorch of each seed that has both, by seed."""
    runs = list(runs)
    ours, theirs = ({r["seed"]: r for r in runs if r["who"] == w} for w in (who, PYTORCH))
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def first_difference(pair: tuple[Run, Run]) -> float:
    """Returns the largest relative difference of the first losses of a pair; nan for none."""
    ours, theirs = (np.array(run["first"][:FIRST]) for run in pair)
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


def disagreement(pair: tuple[Run, Run]) -> str:
    """Returns why a pair does not train the same network from the same start; "" if it does."""
    ours, theirs = pair
    who = f"seed {ours['seed']}"
    if ours["parameters"] != theirs["parameters"]:
        return f"{who}: {ours['parameters']:,} parameters, {theirs['parameters']:,} in PyTorch"
    if not first_difference(pair) <= TOLERANCE:  # also if it is nan
        first = ", ".join(f"{a:.6f} ({b:.6f})" for a, b in zip(*_first(pair), strict=True))
        return f"{who}: the first losses (PyTorch's) differ by over {TOLERANCE:g}: {first}"
    return ""


def _first(pair: tuple[Run, Run]) -> tuple[list[float], list[float]]:
    return pair[0]["first"][:FIRST], pair[1]["first"][:FIRST]


def table(runs: Iterable[Run]) -> Iterator[str]:
    """Yields the lines of the table, with a row for each test, and sentences below it."""
    runs = list(runs)
    found = pairs(runs)
    ours, theirs = (np.array([pair[k]["epochs"] for pair in found]) for k in (0, 1))
    yield (
        "| steps | test error: Tapeline, % | PyTorch, % | difference, each seed | mean difference "
        "| training loss: Tapeline | PyTorch |"
    )
    yield "|---|---|---|---|---|---|---|"
    for place, step in enumerate(ours[0, :, 0]):
        errors = ours[:, place, 1], theirs[:, place, 1]
        apart = errors[0] - errors[1]
        cells = [f"{int(step):,}", *(_words(each, 2) for each in errors)]
        cells += [", ".join(f"{each:+.2f}" for each in apart), _words(apart, 2, "+")]
        cells += [_words(each[:, place, 2], 4) for each in (ours, theirs)]
        yield f"| {' | '.join(cells)} |"
    yield ""
    largest = max(map(first_difference, found))
    apart = ours[:, :, 1] - theirs[:, :, 1]
    yield (
        "Means and sample deviations over the seeds; a difference is Tapeline's error "
        f"less PyTorch's, over all tests and seeds {np.mean(apart):+.2f} on average, "
        f"{_sizes(apart)}{_between_seeds(ours, theirs)}. The first {FIRST} "
        f"losses differ by at most {largest:.1g} of their size. Rounding errors grow from step to "
        f"step: the first loss that differs by 1% is that of step {_parting(found)}."
    )
    if controls := pairs(runs, CONTROL):
        changed, theirs = (np.array([pair[k]["epochs"] for pair in controls]) for k in (0, 1))
        apart = changed[:, :, 1] - theirs[:, :, 1]
        seeds = ", ".join(str(pair[0]["seed"]) for pair in controls)
        yield ""
        yield (
            "PyTorch beside itself, with the last bit of one initial weight changed: test errors "
            f"differ by {_sizes(apart)}, for seed {seeds}, and the first loss that "
            f"differs by 1% is that of step {_parting(controls)}."
        )


def _sizes(apart: np.ndarray) -> str:
    """Formats the mean size of differences, and the largest size."""
    sizes = np.abs(apart)
    return f"{np.mean(sizes):.2f} in size (at most {np.max(sizes):.2f})"


def _between_seeds(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Returns how much the test errors of two seeds differ, for both, as text; "" for one seed.

    Arguments are float [seeds, tests, 3] of [step, test error, loss].
    """
    one, other = np.triu_indices(len(ours), 1)
    if not len(one):
        return ""
    sizes = [np.mean(np.abs(each[one, :, 1] - each[other, :, 1])) for each in (ours, theirs)]
    return f"; two seeds of Tapeline differ by {sizes[0]:.2f}, of PyTorch by {sizes[1]:.2f}"


def _parting(found: list[tuple[Run, Run]]) -> str:
    """Returns the earliest step whose losses differ by 1% in any pair, as text."""
    steps = min(len(pair[0]["first"]) for pair in found)
    ours, theirs = (np.array([pair[k]["first"][:steps] for pair in found]) for k in (0, 1))
    apart = np.flatnonzero(np.any(np.abs(ours - theirs) > 0.01 * np.abs(theirs), axis=0))
    return f"{apart[0] + 1}" if len(apart) else f"{steps + 1} or later"


def _words(values: np.ndarray, digits: int, sign: str = "") -> str:
    """Formats the mean, and the sample standard deviation of several values."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{spread}"


def draw(runs: Iterable[Run], path: Path) -> None:
    """Draws training losses and test errors of all seeds, of both over one another, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    losses, errors = figure.subplots(1, 2)
    for place, pair in enumerate(pairs(runs)):
        for run, color in zip(reversed(pair), ("tab:orange", "tab:blue"), strict=True):
            label = f"{run['who']}, each seed" if not place else None
            style = {"color": color, "alpha": 0.8, "label": label}
            losses.plot(*np.array(run["curve"]).T, linewidth=0.7, **style)
            epochs = np.array(run["epochs"])
            errors.plot(epochs[:, 0], epochs[:, 1], linewidth=1, marker="o", markersize=3, **style)
    losses.set(xlabel="step", ylabel=f"training loss, nats, mean of {SMOOTH} steps")
    errors.set(xlabel="step", ylabel="test error, %")
    for axes in (losses, errors):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
