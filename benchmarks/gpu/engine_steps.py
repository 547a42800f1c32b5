"""Measures training steps of the engine on a GPU.

    python -m benchmarks.gpu.engine_steps resnet50 [--rehearse] [--profile] [--OPTION=VALUE ...]

Further options are those of `run.py`. Where the run trains on all examples and not on one repeated
batch, blocks of steps are also taken in turn with blocks on one batch in device memory; their ratio
shows the share of a step that waits for input. With `--profile`, TensorFlow's profiler then shows
whether copies to the GPU overlap with computation.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
import time
from typing import Any

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

import engine  # noqa: E402
from benchmarks.gpu import copies, timing  # noqa: E402
from engine.assembly.parts import Parts, assemble  # noqa: E402
from engine.benchmark.blocks import interleave_blocks, median_ratio  # noqa: E402
from engine.benchmark.feeds import RepeatedBatchFeed  # noqa: E402
from engine.benchmark.stepper import Stepper  # noqa: E402
from engine.config import flags  # noqa: E402
from engine.core.flops import flops_of_step  # noqa: E402
from engine.core.loop import Loop  # noqa: E402
from engine.runtime.errors import StepError  # noqa: E402

_PROFILED = 10  # steps


def gflop_of(parts: Parts, loop: Loop) -> float:
    """Returns the operations of a step, in 10^9, in a loop that does not crop the images."""
    micro_batches = parts.feeds.training.layout.local_micro_batches
    uncropped = getattr(parts.model, "uncropped", None)
    if uncropped is None:
        return flops_of_step(loop.graph(), micro_batches) / 1e9
    with uncropped():
        return flops_of_step(loop.graph(retrace=True), micro_batches) / 1e9


def input_wait(plain: Stepper, repeated: Stepper, steps: int, blocks: int) -> float:
    """Returns the share of a step that is saved by a batch that is in device memory already."""

    def block(stepper: Stepper) -> float:
        stepper.take(max(1, steps // 8, stepper.read_ahead))  # consumes prefetched batches
        synchronize()
        started = time.perf_counter()
        stepper.take(steps)
        synchronize()
        return time.perf_counter() - started

    variants = {
        name: functools.partial(block, each)
        for name, each in (("plain", plain), ("repeated", repeated))
    }
    next(interleave_blocks(variants, 1))  # traces, and increases the steps of a call
    rounds = list(interleave_blocks(variants, blocks))
    pairs = [[each[name] for each in rounds] for name in ("repeated", "plain")]
    return max(0.0, 1 - median_ratio(*pairs))


def synchronize() -> None:
    """Waits until the GPU, if there is one, has done all its work."""
    timing.synchronize(tf)


def main() -> int:
    """Measures the steps of a workload; returns 0, or 2 if the options or XLA refuse it."""
    try:
        _measure()
    except (ValueError, StepError) as error:
        if isinstance(error, StepError) and "deterministic XLA" not in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure() -> None:
    """Measures the steps of the workload of the arguments, and prints lines of JSON."""
    parser = timing.parser("engine_steps", __doc__)
    parser.add_argument("--profile", action="store_true", help="the overlap of copies, too")
    args, options = parser.parse_known_args()
    workload, length = timing.workload_of(args)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        own = [f"--strategy={'cpu' if args.rehearse else 'gpu'}", f"--run_dir={place}/run"]
        config = flags.parse([*workload.options(), *own, f"--cache_dir={place}/cache", *options])
        parts = stack.enter_context(contextlib.closing(assemble(config)))
        repeated = RepeatedBatchFeed(
            parts.feeds.training,
            parts.strategy,
            seed=config.run.seed,
            classes=parts.source.classes,
        )
        on_one_batch = parts.loop.with_feed(repeated)
        synthetic = config.benchmark.benchmark_data == "synthetic"
        loop = on_one_batch if synthetic else parts.loop
        figures: dict[str, Any] = timing.described(tf, workload, "Tapeline", parts.jit)
        figures["versions"]["tapeline"] = engine.__version__
        figures |= {
            "precision": config.precision.precision,
            "options": options,
            "feed": "one repeated batch" if synthetic else parts.feed_kind,
            "gflop_per_step": gflop_of(parts, loop),
        }
        # The only batch may make every step a bad step, so any number is allowed.
        stepper = Stepper(parts, loop, lambda: False, judged=False)

        def take(steps: int) -> None:
            stepper.take(steps)
            synchronize()

        timing.measure(take, figures, length)
        figures["skipped_steps"] = stepper.left_out
        if not synthetic:
            other = Stepper(parts, on_one_batch, lambda: False, judged=False)
            blocks = figures["blocks"], figures["steps_per_block"]
            figures["input_wait_fraction"] = input_wait(stepper, other, blocks[1], blocks[0])
        timing.tell(figures)
        if args.profile:
            figures["copies"] = copies.profiled(tf, functools.partial(take, _PROFILED))
            timing.tell(figures)


if __name__ == "__main__":
    sys.exit(main())
