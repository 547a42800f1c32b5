"""Trains the recipes of published results over seeds, beside PyTorch where that is the reference.

    python -m benchmarks.published --data_dir=DATA_DIR [--seeds=3] [--only=cifar10] [--place=DIR]

Each training is a process. Its result is kept as a line of recipes/published.jsonl as soon as it is
there, with the whole content of result.json, and is not repeated: the same command goes on where it
was cut off. Then the command writes the table of recipes/README.md and the picture of the curves,
and says which goals are missed; the exit status is 1 for a miss. With --seeds=0, only these.
PyTorch trains if DIR, from `python -m benchmarks.environments DIR`, has its environment.

A seed of all recipes takes 20 minutes on two cores. Run nothing else at the same time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import rounds, trainings
from benchmarks.environments import python_of
from benchmarks.real.comparison import instructions
from benchmarks.recipes import RECIPES, between
from benchmarks.rounds import HERE
from benchmarks.trainings import RunError

TAPELINE, PYTORCH = "Tapeline", "PyTorch"
RAW, PICTURE = "published.jsonl", "published.png"


class Published(NamedTuple):
    """A recipe and the result that others published for its network and settings.

    Attributes:
      source: paper or repository, in Markdown.
      figure: what it publishes; "" for nothing.
      score: keys of the score in result.json.
      unit: unit of the score in the table: "%" for a share, or a word.
      goal: what the mean over seeds must reach: at least this for a share, else at most this more
        than PyTorch's mean.
      peer: script of benchmarks/peers that trains the same in PyTorch; "" for none.
      longest: most seconds of a training, or, if there is a peer, most seconds over the peer's.
    """

    source: str
    figure: str
    score: tuple[str, ...]
    unit: str
    goal: float
    peer: str = ""
    longest: float = float("inf")

    def of(self, run: dict[str, Any]) -> float:
        """Returns the score of a line of published.jsonl, in the unit of the table."""
        found: Any = run["result"]
        for key in self.score:
            found = found[key]
        return 100 * found if self.unit == "%" else found

    def words(self, values: Sequence[float]) -> str:
        """Formats the mean, and the sample standard deviation of several scores."""
        digits = 2 if self.unit == "%" else 3
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread} {self.unit}"


AIRBENCH = "[airbench94](https://arxiv.org/abs/2404.00498) (Jordan 2024)"
PUBLISHED = {
    "cifar10": Published(
        AIRBENCH, "94.01 %, over views", ("test", "accuracy"), "%", 93.8, longest=1800.0
    ),
    "cifar10_quick": Published(
        f"{AIRBENCH} with half the filters", "", ("test", "accuracy"), "%", 90.0, longest=480.0
    ),
    "shakespeare": Published(
        "[nanoGPT](https://github.com/karpathy/nanoGPT), settings for CPUs",
        "1.88 nats, of 240 windows",
        ("validation", "loss"),
        "nats",
        0.02,
        "torch_shakespeare.py",
        1.1,
    ),
}


def train(recipe: str, data_dir: str, seed: int) -> dict[str, Any]:
    """Trains with a recipe; returns a line of published.jsonl.

    Raises:
      RunError: the training fails.
    """
    trained = trainings.train(RECIPES / f"{recipe}.flags", data_dir, seed, f"{recipe}, seed {seed}")
    result = trained.result
    given = f"--flagfile=recipes/{recipe}.flags --seed={seed} --data_dir=DATA_DIR"
    return {
        "command": f"python run.py {given}",
        "seconds": result["startup_seconds"]["trace"] + result["train_seconds"] / result["goodput"],
        "curve": [[row["step"], row["loss"]] for row in trained.rows if row["split"] == "train"],
        "result": result,
    }


def train_with_torch(recipe: str, args: Any, seed: int) -> dict[str, Any]:
    """Trains the same in PyTorch; returns a line of published.jsonl.

    Raises:
      RunError: the training fails.
    """
    script = PUBLISHED[recipe].peer
    with tempfile.TemporaryDirectory() as scratch:
        arrays = Path(scratch) / "ids.npz"
        write_ids(recipe, args.data_dir, arrays)
        python = python_of(args.place, "torch").absolute()
        command = [str(python), str(HERE / "peers" / script), str(arrays), str(seed)]
        said = trainings.told(command, f"PyTorch, {recipe}, seed {seed}")
    found = json.loads(next(line for line in reversed(said) if line.startswith("{")))
    every = PUBLISHED[recipe].score[0]
    return {
        "command": f"python benchmarks/peers/{script} ids.npz {seed}",
        "seconds": found["seconds"],
        "curve": found.pop("curve"),
        "result": {every: {"loss": found["loss"]}, **found},
    }


def write_ids(recipe: str, data_dir: str, path: Path) -> None:
    """Writes the ids of the texts of a recipe, and the number of tokens, for PyTorch.

    Args:
      recipe: a recipe with a text.
      data_dir: directory in which its data set is prepared.
      path: .npz file to write, with "train", "validation" and "vocabulary".
    """
    from engine.assembly import data
    from engine.config import flags

    config = flags.parse([f"--flagfile={RECIPES / recipe}.flags", f"--data_dir={data_dir}"])
    source = data.open_source(config)
    found = {}
    for name in ("train", "validation"):
        split = source.splits[name]
        with tempfile.TemporaryDirectory() as cache:
            reader = split.reader(cache)
            stride = 1 if name == "train" else config.data.context
            rows = np.arange(0, len(split), config.data.context // stride)
            ids = reader.read(rows)[0].ravel()
            inputs, targets = reader.read(np.array([len(split) - 1]))
            end = (len(split) - 1) * stride
            last = np.append(inputs[0], targets[0][-1:])
        found[name] = np.append(ids[:end], last)
    np.savez(path, vocabulary=len(source.vocabulary.tokens), **found)


def kept(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of published.jsonl, of recipes that there are."""
    lines = path.read_text().splitlines() if path.exists() else ()
    return [run for run in map(json.loads, lines) if run["recipe"] in PUBLISHED]


def of(runs: Iterable[dict[str, Any]], recipe: str, who: str) -> list[dict[str, Any]]:
    """Returns the runs of a recipe by Tapeline or PyTorch, by seed."""
    found = [run for run in runs if (run["recipe"], run["who"]) == (recipe, who)]
    return sorted(found, key=lambda run: run["seed"])


def misses(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a message for each missed goal; `runs` are lines of published.jsonl."""
    for recipe, published in PUBLISHED.items():
        ours, theirs = (of(runs, recipe, who) for who in (TAPELINE, PYTORCH))
        if not ours or (published.peer and not theirs):
            continue
        mean, seconds = _mean(map(published.of, ours)), _mean(run["seconds"] for run in ours)
        most, goal = published.longest, published.goal
        if published.peer:
            goal += _mean(map(published.of, theirs))
            most *= _mean(run["seconds"] for run in theirs)
        if not (mean >= goal if published.unit == "%" else mean <= goal):
            side = "at least" if published.unit == "%" else "at most"
            yield f"{recipe}: {mean:.3f} {published.unit}, {side} {goal:.3f} is wanted"
        if not seconds <= most:
            yield f"{recipe}: {seconds:.0f} s, at most {most:.0f} s is wanted"


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of the table, with a row for each recipe that was trained."""
    yield (
        "| recipe | paper or repository | it publishes | Tapeline: mean, deviation | seeds, each "
        "| PyTorch | seconds (PyTorch) | date, processor |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for recipe, published in PUBLISHED.items():
        ours, theirs = (of(runs, recipe, who) for who in (TAPELINE, PYTORCH))
        if not ours:
            continue
        scores = [published.of(run) for run in ours]
        digits = 2 if published.unit == "%" else 3
        each = ", ".join(f"{score:.{digits}f}" for score in scores)
        beside = published.words([published.of(run) for run in theirs]) if theirs else ""
        seconds = f"{_mean(run['seconds'] for run in ours):.0f}"
        if theirs:
            seconds += f" ({_mean(run['seconds'] for run in theirs):.0f})"
        last = ours[-1]
        where = f"{last['date']}, {last['processor']}; {last['result']['precision']}"
        yield (
            f"| `{recipe}` | {published.source} | {published.figure} | {published.words(scores)} "
            f"| {len(ours)}: {each} | {beside} | {seconds} | {where} |"
        )


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draws the training losses of all seeds, a panel for each recipe, as PNG."""
    from matplotlib.figure import Figure

    names = [name for name in PUBLISHED if of(runs, name, TAPELINE)]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    for axes, recipe in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for who, color in ((PYTORCH, "tab:orange"), (TAPELINE, "tab:blue")):
            for place, run in enumerate(of(runs, recipe, who)):
                steps, losses = np.array(run["curve"]).T
                label = f"{who}, each seed" if not place else None
                axes.plot(steps, losses, color=color, linewidth=0.9, alpha=0.8, label=label)
        axes.set(title=recipe, xlabel="step", ylabel="training loss, nats")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def write(out: Path, runs: list[dict[str, Any]]) -> None:
    """Writes the table of the README and the picture to the directory `out`."""
    readme = out / "README.md"
    command = "python -m benchmarks.published --data_dir=DATA_DIR --seeds=3"
    lines = [f"Written by `{command}`; each run is a line of {RAW}.", "", *table(runs)]
    readme.write_text(between(readme.read_text(), "published", lines))
    draw(runs, out / PICTURE)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def main(given: Sequence[str] | None = None) -> int:
    """Trains what is not kept yet, and writes the results; returns 1 for a failure or a miss.

    Args:
      given: command-line arguments; None: those of the process.
    """
    parser = trainings.parser("published", __doc__, seeds=3, out=RECIPES, keras=False)
    parser.add_argument("--only", default=",".join(PUBLISHED), help="recipes, separated by commas")
    args = parser.parse_args(given)
    names = args.only.split(",")
    if unknown := sorted(set(names) - set(PUBLISHED)):
        return trainings.failed(f"--only={unknown[0]}: there are {', '.join(PUBLISHED)}")
    if not args.out.is_dir():
        return trainings.failed(f"--out={args.out}: there is no such directory")
    has_torch = python_of(args.place, "torch").exists()
    runs = kept(args.out / RAW)
    machine = rounds.described()
    processor = f"{machine['processor']}, {machine['cores']} cores, {instructions()}"
    try:
        for seed in range(args.rounds):
            for recipe in names:
                for who in (TAPELINE, PYTORCH) if PUBLISHED[recipe].peer else (TAPELINE,):
                    known = any(run["seed"] == seed for run in of(runs, recipe, who))
                    if known or (who == PYTORCH and not has_torch):
                        continue
                    run = {"recipe": recipe, "who": who, "seed": seed}
                    run |= {"date": time.strftime("%Y-%m-%d"), "processor": processor}
                    if who == TAPELINE:
                        run |= train(recipe, args.data_dir, seed)
                    else:
                        run |= train_with_torch(recipe, args, seed)
                    runs.append(run)
                    trainings.keep(args.out / RAW, run)
                    score = PUBLISHED[recipe].words([PUBLISHED[recipe].of(run)])
                    print(f"  {recipe}, {who}, seed {seed}: {score}, {run['seconds']:.0f} s")
                    sys.stdout.flush()
    except RunError as error:
        return trainings.failed(str(error))
    if runs:
        write(args.out, runs)
    print("\n".join(table(runs)), flush=True)
    missed = list(misses(runs))
    for each in missed:
        trainings.failed(each)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
