"""Measures the steps per second of a configuration, and what a step's time is spent on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config as determinism

import pipelines
from engine.assembly.parts import Parts, assemble
from engine.benchmark.blocks import interleave_blocks
from engine.benchmark.extras import EXTRAS, Extra
from engine.benchmark.feeds import RepeatedBatchFeed, TimedFeed
from engine.benchmark.flops import flops_of_step
from engine.benchmark.machine import GpuMonitor
from engine.benchmark.roofline import Roofline
from engine.benchmark.stepper import Stepper
from engine.config import compatibility
from engine.config.schema import Config
from engine.core.loop import Loop
from engine.core.steps_per_loop import stopwatch
from engine.optim.precision import compute_dtype
from engine.runtime.errors import Interrupted
from engine.trainer import console

ROUNDS = 15
_SECONDS = 0.5  # approximate duration of a block whose number of steps is not configured
_STAMPED = 400  # maximum number of steps that are timed individually


@dataclasses.dataclass
class BenchmarkResult:
    """The measurements of a benchmark.

    Times are in seconds. Lists in `blocks` and `roofline` have one entry per round; entries with
    the same index are measured in the same round.
    """

    parts: Parts
    steps: int  # number of steps in a block
    blocks: dict[str, list[float]]  # seconds; "plain", "still" (a repeated batch), extras
    each_step: np.ndarray  # durations of individual steps
    each_step_by: str  # description of how they are measured
    flop: float  # operations of a step on all replicas, as computed
    model_flop: float  # the same, including what no logit depends on
    roofline: list[float]  # GFLOP/s of matrix products, on all devices together
    trace_seconds: float
    first_call_seconds: float  # first step, with tracing and graph optimization
    utilisation: list[float]  # samples of the first GPU, 0 to 1
    extras: dict[str, Extra]
    left_out: int  # number of bad steps, which training would skip


def measure(
    config: Config,
    *,
    tell: Callable[[str], None],
    progress: Callable[[str, int], None],
    interrupted: Callable[[], bool],
) -> BenchmarkResult:
    """Measures a configuration; leaves no files behind.

    Args:
      config: all options.
      tell: called with a line to print.
      progress: called with the current activity and the number of finished rounds.
      interrupted: called periodically; returns whether to stop.

    Raises:
      Interrupted: when `interrupted` returns True.
      ValueError: for invalid input.
      RuntimeError: when TensorFlow fails, or after more bad steps than training may skip.
    """
    parts = assemble(config)
    try:
        compatibility.check_length_options(config, parts.total_steps)
        tell(console.setting(parts))
        with (
            tempfile.TemporaryDirectory(prefix="tapeline-benchmark-") as place,
            contextlib.closing(
                _Measurement(parts, Path(place), progress, interrupted)
            ) as measurement,
        ):
            return measurement.whole()
    except tf.errors.OpError as error:
        raise RuntimeError(f"cannot benchmark: {pipelines.reason(error)}") from error
    finally:
        parts.close()


class _Measurement:
    def __init__(
        self,
        parts: Parts,
        place: Path,
        progress: Callable[[str, int], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self._config, self._place = parts.config, place
        self._progress, self._interrupted = progress, interrupted
        self._gpu = bool(tf.config.list_logical_devices("GPU"))
        self._stamped = not self._gpu and parts.jit != "loop"
        feed = parts.feeds.training
        still = functools.partial(
            RepeatedBatchFeed, feed, parts.strategy, classes=parts.source.classes
        )
        if self._config.benchmark.benchmark_data == "synthetic":
            self._feed: Any = still(seed=self._config.run.seed)
            parts = dataclasses.replace(parts, loop=parts.loop.with_feed(self._feed))
            self._still = parts.loop
        else:
            self._feed = feed
            self._still = parts.loop.with_feed(still(seed=None))
        self._parts = parts
        state = parts.state
        moving: list[tf.Module] = [state.model, state.optimizer, state.loss_scale, state.bad_steps]
        if state.ema is not None:
            moving.append(state.ema)
        variables = [variable for part in moving for variable in part.variables]
        self._start = [(variable, variable.numpy()) for variable in variables]
        self._steppers: list[Stepper] = []
        self._extras = {name: EXTRAS[name](parts, place) for name in self._config.benchmark.beside}

    def whole(self) -> BenchmarkResult:
        """Warms up, then measures all rounds and individual steps."""
        self._poll("tracing")
        plain = self._stepper(self._parts.loop)
        started = stopwatch()
        graph = self._parts.loop.graph()
        trace_seconds = stopwatch() - started
        plain.take(1)
        first_call_seconds = stopwatch() - started
        flop = flops_of_step(graph, self._feed.layout.local_micro_batches)
        with self._parts.model.whole():
            as_written = self._parts.loop.graph(retrace=True)
        model_flop = flops_of_step(as_written, self._feed.layout.local_micro_batches)
        self._poll("warming up")
        steps = self._steps_of_block(plain)
        roofline = Roofline(compute_dtype(self._config.precision.precision), gpu=self._gpu)
        devices = self._parts.strategy.num_replicas_in_sync if self._gpu else 1
        rates: list[float] = []

        def ceiling() -> float:
            rates.append(roofline.measure() * devices)
            return 0.0

        extras = self._extras
        variants = {"plain": functools.partial(self._block, plain, steps)}
        if self._still is not self._parts.loop:
            # The only batch may make every step a bad step, so any number is allowed.
            still = self._stepper(self._still, judged=False)
            variants["still"] = functools.partial(self._block, still, steps)
        for name, extra in extras.items():
            variants[name] = functools.partial(self._block, plain, steps, extra)
        for variant in variants.values():  # warm-up: traces, and increases the steps per call
            variant()
        for extra in extras.values():
            extra.forget()
        blocks: dict[str, list[float]] = {name: [] for name in variants}
        rounds = min(ROUNDS, self._config.benchmark.benchmark_steps or ROUNDS)
        with GpuMonitor() as watch:
            for found in interleave_blocks({**variants, "ceiling": ceiling}, rounds):
                for name in variants:
                    blocks[name].append(found[name])
                self._poll("measuring", len(blocks["plain"]))
        each_step = self._each_step(steps)
        return BenchmarkResult(
            parts=self._parts,
            steps=steps,
            blocks=blocks,
            each_step=each_step,
            each_step_by=(
                "a clock in the graph" if self._stamped else f"calls of {self._at_once(steps):,}"
            ),
            flop=flop,
            model_flop=model_flop,
            roofline=rates,
            trace_seconds=trace_seconds,
            first_call_seconds=first_call_seconds,
            utilisation=watch.utilisation,
            extras=extras,
            left_out=sum(stepper.left_out for stepper in self._steppers),
        )

    def close(self) -> None:
        """Closes the extras."""
        for extra in self._extras.values():
            extra.close()

    def _poll(self, doing: str, done: int = 0) -> None:
        self._progress(doing, done)
        if self._interrupted():
            raise Interrupted

    def _steps_of_block(self, plain: Stepper) -> int:
        """Returns the number of steps in a block: as configured, or about `_SECONDS` long."""
        if asked := self._config.benchmark.benchmark_steps:
            return -(-asked // min(ROUNDS, asked))
        taken, seconds = 1, 0.0
        while True:
            plain.restart()
            started = stopwatch()
            plain.take(taken)
            seconds = stopwatch() - started
            if seconds > _SECONDS / 4:
                return max(1, round(taken * _SECONDS / seconds))
            self._poll("warming up")
            taken *= 2

    def _block(self, stepper: Stepper, steps: int, extra: Extra | None = None) -> float:
        """Returns the duration in seconds of a block of steps and of the extra work in it."""
        stepper.restart()  # the same work in every block
        stepper.take(max(1, steps // 8, stepper.read_ahead))  # consumes prefetched batches
        self._synchronise()
        started = stopwatch()
        if extra is None:
            stepper.take(steps)
        else:
            extra.before()
            extra.after(stepper.take(steps, point=extra.is_point))
        self._synchronise()
        seconds = stopwatch() - started
        if extra is not None:
            extra.settle()
        return seconds

    def _stepper(self, loop: Loop, *, judged: bool = True) -> Stepper:
        stepper = Stepper(self._parts, loop, self._interrupted, self._start, judged=judged)
        if judged:
            self._steppers.append(stepper)
        return stepper

    def _each_step(self, steps: int) -> np.ndarray:
        """Returns the durations of individual steps in seconds.

        On the CPU the graph records when each step begins, which is when the previous one is done.
        On a GPU the previous step may still be running: each step is a separate call, timed until
        the device is done. A loop that XLA compiles cannot read a clock: the durations are means
        over short calls.
        """
        self._poll("timing single steps")
        count = max(2, min(_STAMPED, 4 * steps))
        if self._stamped:
            stamped = TimedFeed(self._feed, count + 3)
            stepper = self._stepper(self._parts.loop.with_feed(stamped))
            determinism.disable_op_determinism()  # it forbids tf.timestamp
            try:
                stepper.take(count + 3)  # the first traces, the second starts a longer call
            finally:
                determinism.enable_op_determinism()
            return stamped.read()[2:]
        stepper, found = self._stepper(self._parts.loop), []
        at_once = self._at_once(steps)
        for _ in range(_STAMPED // 4 if at_once > 1 else count):
            started = stopwatch()
            stepper.take(at_once)
            self._synchronise()
            found.append((stopwatch() - started) / at_once)
        return np.array(found)

    def _at_once(self, steps: int) -> int:
        """Returns the steps per timed call: 1, or a 50th of a block if XLA compiles the loop."""
        return max(1, steps // 50) if self._parts.jit == "loop" else 1

    def _synchronise(self) -> None:
        if self._gpu:
            tf.test.experimental.sync_devices()
