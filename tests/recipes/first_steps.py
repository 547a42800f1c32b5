"""The losses of the first steps of each recipe, in float32, by the name of its flagfile.

    python -m tests.recipes.first_steps          writes losses.json again, after a meant change
    python -m tests.recipes.first_steps --drift  how far they are from it in this process

For the second, `TF_ENABLE_ONEDNN_OPTS=0`, `ONEDNN_MAX_CPU_ISA=AVX2` and `TF_NUM_INTRAOP_THREADS=1`
stand for other processors.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from engine.assembly.parts import assemble
from engine.config import flags
from tests.golden.place import places
from tests.golden.runs import drift

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.flags"))
STEPS = 3
_KEPT = Path(__file__).with_name("losses.json")
# Means, deviations and patches are those of all training examples: fewer take less time.
_OPTIONS = {"--dataset=cifar10": ("--train_split=train[:4096]",)}


def losses(recipe: str, data_dir: str, cache_dir: str) -> list[float]:
    """Returns the training loss of each of the first `STEPS` steps, before its update.

    Args:
      recipe: name of the flagfile.
      data_dir: TFDS directory with the recipe's data set.
      cache_dir: cache of decoded examples.
    """
    path = RECIPES / f"{recipe}.flags"
    given = path.read_text().splitlines()
    more = [each for option, some in _OPTIONS.items() if option in given for each in some]
    here = (f"--data_dir={data_dir}", f"--cache_dir={cache_dir}", "--feed=stream", "--test_split=")
    on = ("--precision=float32", "--strategy=cpu", "--progress=off")
    parts = assemble(flags.parse([f"--flagfile={path}", *more, *here, *on]))
    try:
        loop = dataclasses.replace(parts.loop, watched=True)
        found: list[float] = []
        while len(found) < STEPS:  # a call takes as many steps as the feed has ready
            found += np.float64(loop.run(STEPS - len(found)).losses).tolist()
        return found
    finally:
        parts.close()


def kept() -> dict[str, list[float]]:
    """Returns the losses in losses.json, by recipe."""
    return json.loads(_KEPT.read_text())


def main() -> int:
    """Writes losses.json, or prints how far the losses are from it; returns 0."""
    with places() as where:
        found = {name: losses(name, **where) for name in NAMES}
    if "--drift" in sys.argv[1:]:
        for name, each in found.items():
            print(f"{name:20} {drift(each, kept()[name]):.1e}")
        return 0
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    _KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
