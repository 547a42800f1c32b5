"""Measures training steps per second, and the times of tracing, input, single steps and extras."""

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
from engine.benchmark.machine import gpu_utilization
from engine.benchmark.roofline import roofline
from engine.benchmark.stepper import Stepper
from engine.config import compatibility
from engine.config.schema import Config
from engine.core.flops import flops_of_step
from engine.core.loop import Loop
from engine.core.steps_per_loop import stopwatch
from engine.logging.progress import Progress
from engine.optim.precision import compute_dtype
from engine.runtime.errors import Interrupted
from engine.runtime.signals import Signals
from engine.trainer import console

ROUNDS = 15
_BLOCK_SECONDS = 0.5  # approximate duration of a block, unless its steps are configured
_MOST_TIMED = 400  # maximum number of steps that are timed individually


def measure(config: Config, bar: Progress, signals: Signals) -> Measurement:
    """Benchmarks the training of a configuration; returns the measurements.

    Prints the devices, data and model first. Files that are written are temporary, except decoded
    examples in the cache directory.

    Args:
      config: all options.
      bar: progress bar, in rounds.
      signals: received signals, which are polled.

    Raises:
      ValueError: for invalid options or damaged data.
      OSError: when a data file cannot be read, or a temporary file cannot be written.
      RuntimeError: when TensorFlow fails, or for more bad steps than training may skip.
      Interrupted: when a signal is received.
    """
    try:
        with contextlib.closing(assemble(config)) as parts, contextlib.ExitStack() as stack:
            compatibility.check_length_options(config, parts.total_steps)
            bar.line(console.setting(parts))
            directory = tempfile.TemporaryDirectory(prefix="tapeline-benchmark-")
            measurement = Measurement(parts, Path(stack.enter_context(directory)), bar, signals)
            for extra in measurement.extras.values():
                stack.callback(extra.close)
            measurement.run()
            return measurement
    except tf.errors.OpError as error:
        raise RuntimeError(f"cannot benchmark: {pipelines.reason(error)}") from error


class Measurement:
    """A benchmark of an assembled run; `run` sets the measurements, with durations in seconds.

    Args:
      parts: the run.
      directory: directory for the files that `extras` write.
      bar: progress bar, in rounds.
      signals: received signals, which are polled.

    Attributes:
      parts: the run; with synthetic data, its loop repeats one batch.
      extras: work that is measured besides steps, by name.
      roofline: rate of plain matrix products in each round, GFLOP/s: of the CPU, or of the first
        GPU times the number of replicas.
      trace_seconds: duration of tracing the training loop.
      first_call_seconds: sum of `trace_seconds` and the duration of the first step.
      flop: number of floating-point operations of a step on all replicas, as `flops_of_step`
        counts them in the training loop; None if the graph does not know a dimension.
      model_flop: number of operations of a step, counted as `flop`, in a loop that does not crop
        images to the part that affects the outputs; equal to `flop` if the model does not crop.
      steps_per_block: number of steps in a block.
      blocks: durations of the blocks, one per round, by variant: "plain"; "repeated_batch", unless
        the data is synthetic; and each name in `extras`.
      utilization: samples of the utilization of the first GPU, 0 to 1.
      each_step: durations of single steps.
      each_step_by: method by which `each_step` was measured.
      left_out: number of bad steps, which training would skip.

    Raises:
      ValueError: if evaluation is to be measured and no split is held out.
    """

    def __init__(self, parts: Parts, directory: Path, bar: Progress, signals: Signals) -> None:
        config = self._config = parts.config
        self._bar, self._signals = bar, signals
        self._gpu = bool(tf.config.list_logical_devices("GPU"))
        self._clock_in_graph = not self._gpu and parts.jit != "loop"
        self._feed: Any = parts.feeds.training
        synthetic = config.benchmark.benchmark_data == "synthetic"
        seed = config.run.seed if synthetic else None
        repeated = RepeatedBatchFeed(
            self._feed, parts.strategy, seed=seed, classes=parts.source.classes
        )
        self._repeated_loop = parts.loop.with_feed(repeated)
        if synthetic:
            self._feed = repeated
            parts = dataclasses.replace(parts, loop=self._repeated_loop)
        self.parts, state = parts, parts.state
        modules = [state.model, state.optimizer, state.loss_scale, state.bad_steps, state.ema]
        variables = [
            variable for module in modules if module is not None for variable in module.variables
        ]
        self._start = [(variable, variable.numpy()) for variable in variables]
        self._steppers: list[Stepper] = []
        self.extras = {name: EXTRAS[name](parts, directory) for name in config.benchmark.extras}
        self.roofline: list[float] = []  # GFLOP/s of matrix products on all devices, per round

    def run(self) -> None:
        """Measures tracing, then, after a warm-up, rounds of blocks of steps, then single steps.

        Raises:
          Interrupted: when a signal is received.
          OSError: when a checkpoint or metrics cannot be written.
          RuntimeError: when TensorFlow fails in a step or an evaluation, or for more bad steps than
            training may skip.
          tf.errors.OpError: when TensorFlow fails otherwise.
          ValueError: when the model, task, a metric or the optimizer is found invalid while a loop
            is traced.
        """
        self._poll("tracing")
        plain = self._stepper(self.parts.loop)
        started = stopwatch()
        graph = self.parts.loop.graph()
        self.trace_seconds = stopwatch() - started
        plain.take(1)
        # Of the first step, with tracing and graph optimization.
        self.first_call_seconds = stopwatch() - started
        # Floating-point operations of a step on all replicas: as computed, and without cropping.
        micro_batches = self._feed.layout.local_micro_batches
        self.flop = _flops(graph, micro_batches)
        uncropped = getattr(self.parts.model, "uncropped", contextlib.nullcontext)
        with uncropped():
            self.model_flop = _flops(self.parts.loop.graph(retrace=True), micro_batches)
        self._poll("warming up")
        steps = self.steps_per_block = self._steps_of_block(plain)
        rate = roofline(compute_dtype(self._config.precision.precision), gpu=self._gpu)
        devices = self.parts.strategy.num_replicas_in_sync if self._gpu else 1

        def measure_roofline() -> float:
            self.roofline.append(rate() * devices)
            return 0.0

        variants: dict[str, Callable[[], float]]
        variants = {"plain": functools.partial(self._block, plain, steps)}
        if self._repeated_loop is not self.parts.loop:
            # The only batch may make every step a bad step, so any number is allowed.
            repeated = self._stepper(self._repeated_loop, judged=False)
            variants["repeated_batch"] = functools.partial(self._block, repeated, steps)
        for name, extra in self.extras.items():
            variants[name] = functools.partial(self._block, plain, steps, extra)
        for variant in variants.values():  # warm-up: traces, and increases the steps per call
            variant()
        for extra in self.extras.values():
            extra.stalls.clear()
        # Seconds of each block, per round.
        self.blocks: dict[str, list[float]] = {name: [] for name in variants}
        rounds = min(ROUNDS, self._config.benchmark.benchmark_steps or ROUNDS)
        with gpu_utilization() as self.utilization:
            for seconds in interleave_blocks({**variants, "roofline": measure_roofline}, rounds):
                for name in variants:
                    self.blocks[name].append(seconds[name])
                self._poll("measuring", len(self.blocks["plain"]))
        self._time_single_steps()
        # Bad steps, which training would skip.
        self.left_out = sum(stepper.left_out for stepper in self._steppers)

    def _poll(self, activity: str, rounds: int = 0) -> None:
        self._bar.describe(activity)
        self._bar.set(rounds)
        if self._interrupted():
            raise Interrupted

    def _interrupted(self) -> bool:
        return bool(self._signals.received)

    def _steps_of_block(self, plain: Stepper) -> int:
        """Returns the number of steps in a block.

        The number is `--benchmark_steps` divided by the number of rounds, rounded up; or, if that
        option is 0, the number that takes about `_BLOCK_SECONDS`, found by timing `plain`.
        """
        if total := self._config.benchmark.benchmark_steps:
            return -(-total // min(ROUNDS, total))
        steps = 1
        while True:
            plain.restart()
            started = stopwatch()
            plain.take(steps)
            seconds = stopwatch() - started
            if seconds > _BLOCK_SECONDS / 4:
                return max(1, round(steps * _BLOCK_SECONDS / seconds))
            self._poll("warming up")
            steps *= 2

    def _block(self, stepper: Stepper, steps: int, extra: Extra | None = None) -> float:
        """Runs a block of steps with the work of `extra`, if any; returns the duration in seconds.

        First restores the initial state and takes some steps that are not timed.
        """
        stepper.restart()  # the same work in every block
        stepper.take(max(1, steps // 8, stepper.read_ahead))  # consumes prefetched batches
        self._synchronize()
        started = stopwatch()
        if extra is None:
            stepper.take(steps)
        else:
            extra.before()
            extra.after(stepper.take(steps, point=extra.is_point))
        self._synchronize()
        seconds = stopwatch() - started
        if extra is not None:
            extra.settle()
        return seconds

    def _stepper(self, loop: Loop, *, judged: bool = True) -> Stepper:
        stepper = Stepper(self.parts, loop, self._interrupted, self._start, judged=judged)
        if judged:
            self._steppers.append(stepper)
        return stepper

    def _time_single_steps(self) -> None:
        """Sets `each_step`, the durations of single steps, and `each_step_by`, the method.

        On the CPU the graph records when each step begins, which is when the previous one is done.
        On a GPU each step is a call of the graph, timed until the device is done. A loop that XLA
        compiles cannot read a clock: the durations are means over calls of a few steps.
        """
        self._poll("timing single steps")
        steps = self.steps_per_block
        count = max(2, min(_MOST_TIMED, 4 * steps))
        if self._clock_in_graph:
            self.each_step_by = "a clock in the graph"
            timed_feed = TimedFeed(self._feed, count + 3)
            stepper = self._stepper(self.parts.loop.with_feed(timed_feed))
            determinism.disable_op_determinism()  # it forbids tf.timestamp
            try:
                stepper.take(count + 3)  # the first traces, the second starts a longer call
            finally:
                determinism.enable_op_determinism()
            self.each_step = timed_feed.read()[2:]
            return
        steps_per_call = max(1, steps // 50) if self.parts.jit == "loop" else 1
        self.each_step_by = f"calls of {steps_per_call:,}"
        stepper, durations = self._stepper(self.parts.loop), []
        for _ in range(_MOST_TIMED // 4 if steps_per_call > 1 else count):
            started = stopwatch()
            stepper.take(steps_per_call)
            self._synchronize()
            durations.append((stopwatch() - started) / steps_per_call)
        self.each_step = np.array(durations)

    def _synchronize(self) -> None:
        if self._gpu:
            tf.test.experimental.sync_devices()


def _flops(graph: Any, local_micro_batches: int) -> float | None:
    """Returns `flops_of_step`; None if the graph does not know a dimension.

    This may be so in a user's model, for example after `tf.py_function`.
    """
    try:
        return flops_of_step(graph, local_micro_batches)
    except ValueError:
        return None
