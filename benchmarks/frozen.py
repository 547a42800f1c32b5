"""Measures the time that frozen parameters add to a step, in comparison with a constant.

    python -m benchmarks.frozen [--parameters=20000000] [--rounds=9] [--option=--jit=off ...]

The model classifies the embedded digits with the mean of rows of a float32 table, one row for each
pixel. The table is a frozen variable in one run and a constant in the other. Both runs are
assembled as the command line does; each round trains an epoch of one and then of the other, in one
process. Prints one JSON object: the median milliseconds per step of both runs, and the median of
the differences in a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from engine.assembly.parts import Parts, assemble  # noqa: E402
from engine.config import flags  # noqa: E402
from tapeline import models  # noqa: E402

PIXELS, COLUMNS = 64, 64  # of an image, and of the table


class Embedded(tf.Module):
    """A linear layer without bias on the mean of table rows, one row for each pixel.

    The table is not trained.

    Args:
      parameters: number of elements of the table, rounded down to a multiple of `COLUMNS`.
      variable: whether the table is a variable; otherwise it is a constant.
      classes: number of logits.
    """

    def __init__(self, parameters: int, variable: bool, classes: int) -> None:
        super().__init__()
        self.rows = parameters // COLUMNS
        random = np.random.default_rng(0)
        values = random.normal(size=(self.rows, COLUMNS)).astype(np.float32)
        self.table = (
            tf.Variable(values, trainable=False, name="table") if variable else tf.constant(values)
        )
        self.kernel = tf.Variable(tf.zeros([COLUMNS, classes]), name="kernel")

    def __call__(self, images: tf.Tensor, context: object) -> tf.Tensor:
        """Returns logits, float32 [rows, classes], of images, float32 [rows, 8, 8, 1] in [0, 1]."""
        levels = tf.cast(tf.round(tf.reshape(images, [-1, PIXELS]) * 16), tf.int32)  # 0 to 16
        apart = self.rows // (PIXELS * 17)
        rows = tf.gather(self.table, (levels + tf.range(PIXELS) * 17) * apart)
        return tf.linalg.matmul(tf.reduce_mean(rows, 1), self.kernel)


def assembled(place: str, parameters: int, variable: bool, options: list[str]) -> Parts:
    """Registers a model and returns the assembled parts of a run that trains it.

    Args:
      place: directory for the run directory and the cache.
      parameters: number of elements of the table.
      variable: whether the table is a variable; otherwise it is a constant.
      options: further command-line options.
    """
    name = "frozen_variable" if variable else "constant"

    @models.register(name)
    def make(outputs: tf.TensorSpec) -> tf.Module:
        return Embedded(parameters, variable, outputs.shape[0])

    small = ["--validation_split=0", "--test_split=", "--global_batch_size=32", "--progress=off"]
    where = [f"--run_dir={place}/{name}", f"--cache_dir={place}/cache", f"--model={name}"]
    return assemble(flags.parse([*small, *where, "--epochs=1000000", *options]))


def milliseconds(parts: Parts) -> float:
    """Trains for an epoch in one call of the loop and returns the mean milliseconds per step."""
    started = time.perf_counter()
    parts.loop.run(parts.steps_per_epoch)
    return (time.perf_counter() - started) / parts.steps_per_epoch * 1000


def main() -> None:
    """Measures both runs in turn and prints the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--option", action="append", default=[], help="an option of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = [assembled(place, given.parameters, each, given.option) for each in (True, False)]
        for parts in runs:
            milliseconds(parts)
        rounds = [[milliseconds(parts) for parts in runs] for _ in range(given.rounds)]
    variable, constant = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        json.dumps(
            {
                "parameters": given.parameters,
                "options": given.option,
                "variable_ms": round(variable, 3),
                "constant_ms": round(constant, 3),
                "difference_ms": round(statistics.median(a - b for a, b in rounds), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
