"""Compares batch norm, forward and backward, with TensorFlow's kernel for it.

    python -m benchmarks.batch_norm [--starts=3] [--rounds=15] [--shape=128,28,28,32 ...]

A function in the graph normalizes several activations one after the other, and computes all
gradients, as a training step does. Compared with `tf.raw_ops.FusedBatchNormV3` and its gradient:

- "one replica": the layer as a training step calls it on one replica, with a mask, all of ones;
- "several": the layer with a reduction over replicas, which here returns what it is given;
- "partial": the layer on one replica, the last row of whose micro-batches is padding.

The ways are measured in turn in one process, and in as many processes as `--starts` says. Prints a
table of median milliseconds of one batch norm, and of the median over the processes of the ratio to
TensorFlow's kernel, with its range. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SHAPES = ("128,28,28,32", "128,32,32,16", "128,8,8,64")
DTYPES = ("float32", "bfloat16")
KERNEL = "FusedBatchNormV3"
TIMES = 12  # batch norms in a call of the function
ARRAYS = 6  # different activations, so that no cache holds those of the next


def measured(shape: tuple[int, ...], dtype: str, rounds: int) -> dict[str, float]:
    """Returns the median milliseconds of one batch norm, forward and backward, by its way.

    Args:
      shape: shape of the activations, [rows, height, width, channels].
      dtype: dtype of the activations.
      rounds: number of times each way is measured.
    """
    from engine.runtime.startup import import_tensorflow

    import_tensorflow()

    import numpy as np
    import tensorflow as tf

    from engine.models.base import ForwardContext, Initializer
    from engine.models.batch_norm import BatchNorm

    random = np.random.default_rng(0)
    arrays = [[tf.cast(random.normal(size=shape), dtype) for _ in range(ARRAYS)] for _ in range(2)]
    layer = BatchNorm()
    layer.build(shape[1:], Initializer(0, 0, layer.kind))
    ones, partial = np.ones(shape[0], np.float32), np.ones(shape[0], np.float32)
    partial[-1] = 0

    def kernel(x: tf.Tensor, upstream: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, ...]:
        result = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.identity(layer.scale),
            offset=tf.identity(layer.offset),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=layer.epsilon,
            exponential_avg_factor=1.0,
            is_training=True,
        )
        gradient = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=x,
            scale=tf.identity(layer.scale),
            reserve_space_1=result.reserve_space_1,
            reserve_space_2=result.reserve_space_2,
            reserve_space_3=result.reserve_space_3,
            epsilon=layer.epsilon,
            is_training=True,
        )
        return result.y, gradient.x_backprop, gradient.scale_backprop

    def of_layer(all_reduce: Callable[..., list[tf.Tensor]]) -> Callable[..., tuple]:
        def normalized(x: tf.Tensor, upstream: tf.Tensor, mask: tf.Tensor) -> tuple:
            context = ForwardContext(True, mask, dtype=tf.as_dtype(dtype), all_reduce=all_reduce)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([x, layer.scale, layer.offset])
                y = layer(x, context)
            gradients = tape.gradient(y, [x, layer.scale, layer.offset], upstream)
            return y, *gradients[:2]

        return normalized

    one, several = of_layer(list), of_layer(lambda tensors: [tf.identity(t) for t in tensors])
    ways = {
        KERNEL: (kernel, ones),
        "one replica": (one, ones),
        "several": (several, ones),
        "partial": (one, partial),
    }

    def repeated(way: Callable[..., tuple]) -> Callable[..., tf.Tensor]:
        @tf.function(autograph=False)
        def function(inputs: list, upstreams: list, mask: tf.Tensor) -> tf.Tensor:
            total = tf.zeros([])
            for index in range(TIMES):
                with tf.control_dependencies([total]):  # one after the other
                    x, upstream = (
                        tf.identity(each[index % ARRAYS]) for each in (inputs, upstreams)
                    )
                    results = way(x, upstream, tf.identity(mask))
                first = [tf.cast(tf.reshape(each, [-1])[0], tf.float32) for each in results]
                total += tf.add_n(first)
            return total

        return function

    functions = {name: (repeated(way), tf.constant(mask)) for name, (way, mask) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):  # the first two are not counted
        for name, (function, mask) in functions.items():
            started = time.perf_counter()
            float(function(*arrays, mask))
            if turn > 1:
                seconds[name].append((time.perf_counter() - started) / TIMES)
    return {name: 1000 * statistics.median(each) for name, each in seconds.items()}


def in_own_process(shape: str, dtype: str, rounds: int) -> dict[str, float]:
    """Returns `measured` of a new process."""
    command = [sys.executable, "-m", "benchmarks.batch_norm", "--one", f"--shape={shape}"]
    command += [f"--dtype={dtype}", f"--rounds={rounds}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows(shape: str, dtype: str, starts: list[dict[str, float]]) -> list[str]:
    """Returns rows of the table of one shape and dtype.

    Args:
      shape: the shape, numbers with commas between them.
      dtype: the dtype.
      starts: results of `measured`, of each process.
    """
    lines = []
    for name in starts[0]:
        milliseconds = statistics.median(each[name] for each in starts)
        ratios = sorted(each[name] / each[KERNEL] for each in starts)
        line = f"| {shape} | {dtype} | {name} | {milliseconds:.2f} | "
        lines.append(
            f"{line}x{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return lines


def main() -> None:
    """Measures each shape and dtype in turn, in `--starts` processes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=3, help="processes for each row")
    parser.add_argument("--rounds", type=int, default=15, help="measurements in a process")
    parser.add_argument("--shape", action="append", help="rows, height, width, channels")
    parser.add_argument("--dtype", action="append", help="dtype of the activations")
    parser.add_argument("--one", action="store_true", help="measure here, and print JSON")
    given = parser.parse_args()
    shapes, dtypes = given.shape or SHAPES, given.dtype or DTYPES
    if given.one:
        shape = tuple(map(int, shapes[0].split(",")))
        print(json.dumps(measured(shape, dtypes[0], given.rounds)))
        return
    print("| shape | dtype | batch norm | ms | time over TensorFlow's kernel |")
    print("|---|---|---|---|---|")
    for shape in shapes:
        for dtype in dtypes:
            starts = [in_own_process(shape, dtype, given.rounds) for _ in range(given.starts)]
            print("\n".join(rows(shape, dtype, starts)), flush=True)


if __name__ == "__main__":
    main()
