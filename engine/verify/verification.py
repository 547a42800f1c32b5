"""Checks the eight laws of docs/concepts/laws.md on a configuration; returns a certificate."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import engine
import pipelines
from engine.assembly import precision
from engine.config.schema import Config, option_values
from engine.core.steps_per_loop import stopwatch
from engine.distributed.options import GIVEN_UP
from engine.models.summary import rows as summary_rows
from engine.runtime.errors import Interrupted
from engine.tasks.task import Task
from engine.trainer import console
from engine.verify.certificate import Certificate, Finding, Verdict, not_compared
from engine.verify.laws import LAWS, Law
from engine.verify.runs import CHECKPOINT_STEP, STEPS, VerificationRuns
from engine.verify.task_maker import MakeTask
from pipelines import reason


def verify(
    config: Config,
    make_task: MakeTask | Task | None = None,
    *,
    print_line: Callable[[str], None] = lambda line: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Certificate:
    """Checks that training on a configuration, optionally with a custom task, is correct.

    The function checks the eight laws of docs/concepts/laws.md, such as bitwise reproducibility and
    results that do not depend on the number of devices, on about a dozen small runs in a temporary
    directory; `config.run.run_dir` is neither read nor written. Call the function before the first
    tensor is created, because it splits the CPU into virtual devices. Afterwards, TensorFlow's op
    determinism is enabled, unless `--deterministic=no` leaves it off on GPUs, and its global seed
    is unset. With that option, equal bits are not checked.

    Args:
      config: all options, as `engine.config.flags.parse` returns them.
      make_task: function without arguments, or class, that makes a new task for each run, so that
        runs share no task state; or a task, which is copied for each run; None: the task that
        `config` specifies.
      print_line: called with text to print: a description of what is verified, then a line per law.
      interrupted: called periodically; returns whether to stop.

    Returns:
      The certificate, with a verdict on each law.

    Raises:
      ValueError: for invalid input, as in training; when TensorFlow has started with too few
        devices; when `make_task` is neither a task nor callable, or returns the same task twice;
        when a task cannot be copied.
      OSError: when a file of the data set cannot be read.
      RuntimeError: when TensorFlow fails in the first run.
      Interrupted: when `interrupted` returns True.
      Exception: when the task raises it in the first run. An exception in a later run, such as on
        several devices, is not raised but counts as a broken law.
    """
    started = stopwatch()
    config = precision.resolved(config)
    with tempfile.TemporaryDirectory(prefix="tapeline-verify-") as directory:
        runs = VerificationRuns(config, make_task, directory, interrupted)
        verdicts: dict[str, Verdict] = {}
        try:
            print_line(_heading(runs))
            for law in LAWS:
                skipped = law.compares and verdicts["L3"].passed is False
                verdict = verdicts[law.number] = _judged(law, runs, skipped=skipped)
                print_line(verdict.line)
        except tf.errors.OpError as error:
            raise RuntimeError(f"cannot verify: {reason(error)}") from error
        finally:
            runs.close()
    return _certificate(runs, list(verdicts.values()), stopwatch() - started)


def _judged(law: Law, runs: VerificationRuns, *, skipped: bool) -> Verdict:
    started = stopwatch()
    try:
        finding = not_compared("two identical runs differ, see L3") if skipped else law.check(runs)
    except Interrupted:
        raise
    except Exception as error:  # a run that works once must work again, on other devices too
        message = " ".join(str(error).split())[:300]
        finding = Finding(False, "", f"raised {type(error).__name__}: {message}")
    return Verdict(law.number, law.name, *finding, seconds=stopwatch() - started)


def _certificate(runs: VerificationRuns, verdicts: list[Verdict], seconds: float) -> Certificate:
    sample = runs.sample
    configured, one, many, note = runs.topologies
    return Certificate(
        verdicts=tuple(sorted(verdicts, key=lambda verdict: verdict.law)),
        config=option_values(runs.config),
        data={
            "dataset": f"{sample.full.name}:{sample.full.version}",
            "train": len(sample.source.train),
            "of_train": len(sample.full.train),
            "evaluated": sample.scored_from,
            "examples_evaluated": sample.examples_scored,
            "of_evaluated": sample.examples_held_out,
            "feed": runs.feed_kind,
            "steps": STEPS,
            "steps_per_epoch": runs.reference.parts.steps_per_epoch,
            "saved_after": CHECKPOINT_STEP,
        },
        device={
            "device": configured.description,
            "one": one.description,
            "many": many.description,
            "replicas": many.replicas,
            "note": note,
        },
        versions={
            "tapeline": engine.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        seconds=seconds,
    )


def _heading(runs: VerificationRuns) -> str:
    """Takes the steps of the reference run; returns lines of text about what is verified.

    The lines are about the versions, devices, data, model and training plan.
    """
    parts, config, sample = runs.reference.parts, runs.config, runs.sample
    full = sample.full
    configured, _, many, note = runs.topologies
    replicas = "" if many is configured else f"; replicas: {many.description}"
    shape = pipelines.described(full.decoded[0])
    if full.has_images:
        shape = f"images {'x'.join(map(str, full.image_shape))}"
    parameters = sum(row.parameters for row in summary_rows(parts.model))
    length = f"the first {STEPS} of {runs.total_steps:,} steps"
    if runs.total_steps < runs.scheduled_steps:
        length = (
            f"{STEPS} steps on the schedule of a run of {runs.scheduled_steps}, longer than this "
            f"one of {runs.total_steps:,}"
        )
    lines = [
        f"tapeline {engine.__version__}, tensorflow {tf.__version__}, python "
        f"{platform.python_version()}, on {configured.description}{replicas}",
        *([f"note   {note}"] if note else []),
        f"data   {full.name} {full.version}: {len(sample.source.train):,} of "
        f"{len(full.train):,} train, {sample.examples_scored:,} of "
        f"{sample.examples_held_out:,} {sample.scored_from}; {shape}; "
        f"{runs.feed_kind} feed",
        f"model  {config.model.model}, {parameters:,} parameters, {config.precision.precision}",
        f"train  {length}, {parts.steps_per_epoch} an epoch here; {console.plan(config)}",
    ]
    if not config.devices.is_deterministic:
        lines.append(f"note   --deterministic=no gives up {GIVEN_UP}")
    return "\n".join(lines)
