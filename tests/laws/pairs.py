"""Trains and verifies configurations that together cover most pairs of option values.

    python -m tests.laws.pairs --configurations=60 --seed=0

Each configuration trains a few steps on the embedded digits through the command line. Then
`--mode=verify` checks the configuration. The result must be PASS, which allows for checks that
verify skips with a reason. Prints a line for each configuration, a table of failures and the
fraction of pairs covered. The exit status is 1 if any configuration failed or none could be
trained. A configuration takes about half a minute on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.chaos import victim

# Factor -> the command-line options of each choice. Some networks need larger images. Few examples
# make epochs short, so that every run passes the end of an epoch.
FACTORS: dict[str, tuple[str, ...]] = {
    "model": (
        "--model=logistic",
        "--model=mlp --hidden=16",
        "--model=cnn",
        "--model=speedrun --image_size=16,16",
        "--model=seed_000 --image_size=10,10",
        "--model=seed_001 --image_size=18,18",
        "--model=seed_002 --image_size=10,12",
        "--model=seed_004 --image_size=10,10",
    ),
    "optimizer": tuple(
        f"--optimizer={name}"
        for name in (
            *("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "lamb", "lion", "muon"),
        )
    ),
    "schedule": tuple(
        f"--schedule={name}"
        for name in ("constant", "cosine", "step", "exponential", "one_cycle", "plateau")
    ),
    "warmup": ("", "--warmup_steps=3"),
    "precision": ("", "--precision=mixed_bfloat16", "--precision=mixed_float16"),
    "loss_scale": ("", "--loss_scale=1", "--loss_scale=1024 --loss_scale_growth_steps=2"),
    "loss_scale_floor": ("", "--loss_scale_floor=512 --loss_scale_factor=4"),
    "jit": ("", "--jit=off", "--jit=step", "--jit=loop"),
    "feed": ("--feed=resident", "--feed=stream"),
    "devices": (
        "",
        "--strategy=cpu",
        "--virtual_devices=1",
        "--virtual_devices=2 --strategy=mirrored",
        "--virtual_devices=4",
    ),
    "accumulate": ("", "--accumulate=3", "--accumulate=4"),
    "recompute": ("", "--recompute=layers/*"),
    "shards": ("", "--shards=1", "--shards=4"),
    "batch": ("--global_batch_size=16", "--global_batch_size=33", "--global_batch_size=64"),
    "evaluation_batch": ("", "--evaluation_batch_size=7"),
    "clip_norm": ("", "--clip_norm=0.5"),
    "clip_value": ("", "--clip_value=0.01"),
    "augment": (
        "",
        "--augment=shift:1,rotation:10",
        "--augment=mixup:0.3",
        "--augment=elastic:1,cutout:2",
        "--augment=flip,zoom:0.1,shear:0.1",
        "--augment=crop,randaugment:2:9",
        "--augment=crop:2:zeros,flip,color_jitter:0.4:0.4:0.4:0.1,cutmix,mixup",
    ),
    "ema": ("", "--ema=0.9", "--ema=0.999 --evaluate_ema=false"),
    "label_smoothing": ("", "--label_smoothing=0.1"),
    "weight_decay": ("", "--weight_decay=0", "--weight_decay=0.05"),
    "log_every": ("", "--log_every=2"),
    "spike": ("", "--spike=10"),
    "leave_out": ("", "--leave_out=2,5"),
    "monitor": ("", "--monitor=train_loss", "--monitor=validation_accuracy"),
    "patience": ("", "--patience=1 --min_delta=0.01", "--patience=1 --restore_best=true"),
    "validation": (
        "--validation_split=0.1",
        "--validation_split=0",
        "--validation_split=validation=0.1,b=0.1",
    ),
    "evaluation_examples": ("", "--evaluation_examples=5"),
    "evaluation_views": ("", "--evaluation_views=flip,shift:1"),
    "test": ("", "--test_split="),
    "evaluate": ("", "--evaluate_every=4", "--evaluate_every=5 --evaluate_at_start=true"),
    "steps_per_loop": ("", "--steps_per_loop=1", "--steps_per_loop=5"),
    "saving": ("", "--checkpoint_every=3", "--checkpoint_seconds=0"),
    "length": ("--train_steps=9", "--epochs=2", "--train_steps=40"),
    "examples": ("--train_split=train[:150]", "--train_split=train[:288]"),
    "seed": ("", "--seed=7"),
    "learning_rate": ("", "--learning_rate=0.05"),
}
_HANG = 1800  # seconds; XLA compiles a dozen programs in one verification
_CANDIDATES = 30  # per configuration; the one with most new pairs is chosen

Candidate = dict[str, int]  # factor -> index of its choice
ConfusedPair = tuple[tuple[str, int], tuple[str, int]]


class Failure(NamedTuple):
    """A configuration whose training or verification failed.

    Attributes:
      number: number of the configuration.
      stage: "train" or "verify".
      status: exit status of the stage.
      words: the last line that the stage printed.
      options: the configuration's command-line options, separated by spaces.
    """

    number: int
    stage: str
    status: int
    words: str
    options: str


def refused(one: str, other: str) -> bool:
    """Returns whether training rejects a configuration that has both of two texts in `FACTORS`."""
    for a, b in ((one, other), (other, one)):
        several = "virtual_devices=2" in b or "virtual_devices=4" in b
        if a == "--jit=loop" and (several or "--shards" in b):
            return True
        if a == "--shards=1" and several:
            return True
        if a == "--schedule=one_cycle" and "--warmup_steps" in b:
            return True
        if a == "--monitor=validation_accuracy" and b == "--validation_split=0":
            return True
    return False


def pairs_of(choice: Candidate) -> set[ConfusedPair]:
    """Returns all pairs of choices in a configuration, which may lack factors."""
    return set(itertools.combinations(sorted(choice.items()), 2))


def all_pairs() -> set[ConfusedPair]:
    """Returns all pairs of choices that training accepts."""
    factors = sorted(FACTORS)
    return {
        ((one, i), (other, j))
        for one, other in itertools.combinations(factors, 2)
        for i, first in enumerate(FACTORS[one])
        for j, second in enumerate(FACTORS[other])
        if not refused(first, second)
    }


def sampled(seed: int) -> Iterator[Candidate]:
    """Yields configurations without end, each the best of 30 candidates at covering new pairs."""
    random = np.random.default_rng(seed)
    missing = all_pairs()
    while True:
        candidates = [_grown(random, missing) for _ in range(_CANDIDATES)]
        best = max(candidates, key=lambda choice: len(pairs_of(choice) & missing))
        missing -= pairs_of(best)
        yield best


def _grown(random: np.random.Generator, missing: set[ConfusedPair]) -> Candidate:
    """Builds a candidate greedily, factor by factor in random order, to cover missing pairs."""
    chosen: Candidate = {}
    for name in random.permutation(sorted(FACTORS)):
        others = [FACTORS[other][place] for other, place in chosen.items()]
        allowed = [
            place
            for place, text in enumerate(FACTORS[name])
            if not any(refused(text, other) for other in others)
        ]

        def gain(place: int, name: str = str(name)) -> int:
            new = (tuple(sorted([(name, place), other])) for other in chosen.items())
            return sum(pair in missing for pair in new)

        best = max(map(gain, allowed))
        equal = [place for place in allowed if gain(place) == best]
        chosen[str(name)] = int(random.choice(equal))
    return chosen


def options_of(choice: Candidate) -> list[str]:
    """Returns the command-line options of a configuration."""
    return [text for name in FACTORS for text in FACTORS[name][choice[name]].split()]


def tried(number: int, choice: Candidate, place: Path) -> tuple[str, Failure | None]:
    """Trains a configuration in a child process, and verifies it in another if training succeeds.

    Args:
      number: number of the configuration.
      choice: the configuration.
      place: directory for the run and the cache.

    Returns:
      The result, which starts with "refused", "ok" or "FAILED" and contains the last printed line,
      and the failure, or None.
    """
    options = options_of(choice)
    common = [f"--run_dir={place / str(number)}", f"--cache_dir={place / 'cache'}"]
    common += ["--report=false", "--progress=off"]
    for mode in ("train", "verify"):
        ended = victim.run(
            [*common, *options, f"--mode={mode}"],
            place / "said",
            signal.SIGKILL,
            None,
            hang=_HANG,
        )
        last = (ended.said.splitlines() or [""])[-1]
        if mode == "train" and ended.status == 2 and "Traceback" not in ended.said:
            return f"refused: {last}", None
        wrong = ended.status or "Traceback" in ended.said
        if wrong or (mode == "verify" and not last.startswith("PASS")):
            failure = Failure(number, mode, ended.status, last, " ".join(options))
            return f"FAILED {mode} {ended.status}: {last}", failure
    return f"ok: {last}", None


def main() -> int:
    """Trains and verifies configurations; returns 1 if any failed or none trained, otherwise 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first one to try")
    asked = parser.parse_args()

    from engine.runtime.startup import import_tensorflow

    import_tensorflow()
    from engine.trainer import command as training
    from engine.verify import command
    from pipelines.sources.tfds import open_source

    del training, command  # imported before the children fork
    place, parent = Path(tempfile.mkdtemp(prefix="tapeline-pairs-")), os.getpid()
    failures: list[Failure] = []
    covered: set[ConfusedPair] = set()
    skipped = trained = 0
    try:
        open_source("digits", data_dir=None, cache_dir=str(place / "cache"))
        chosen = itertools.islice(sampled(asked.seed), asked.configurations)
        for number, choice in enumerate(chosen):
            if number < asked.first:
                continue
            started = time.monotonic()
            words, failure = tried(number, choice, place)
            print(f"{number}: {words} ({time.monotonic() - started:.0f} s)", flush=True)
            if failure is not None:
                failures.append(failure)
            if words.startswith("refused"):
                skipped += 1
            else:
                trained += 1
                covered |= pairs_of(choice)
            if not words.startswith("ok"):
                print(f"   {' '.join(options_of(choice))}", flush=True)
    finally:
        if os.getpid() == parent:  # not in a forked child, which also gets here
            shutil.rmtree(place)
    if failures:
        print("\nnumber  stage   status  last line; options")
        for f in failures:
            print(f"{f.number:6}  {f.stage:6}  {f.status:6}  {f.words}\n        {f.options}")
    share = len(covered & all_pairs()) / len(all_pairs())
    print(
        f"{trained} configurations trained, {skipped} refused, {len(failures)} failed; "
        f"{share:.1%} of {len(all_pairs()):,} pairs of option values covered"
    )
    return 1 if failures or not trained else 0


if __name__ == "__main__":
    sys.exit(main())
