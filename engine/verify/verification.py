"""A configuration -> a certificate."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import engine
import models
from engine.config import Config, sections
from engine.pace import stopwatch
from engine.task import Task
from engine.training import narration
from engine.verify.bench import SAVED, STEPS, Bench, Interrupted, MakeTask
from engine.verify.certificate import Certificate, Verdict
from engine.verify.finding import Finding, not_compared
from engine.verify.laws import LAWS, Law
from pipelines import reason


def verify(
    config: Config,
    make_task: MakeTask | Task | None = None,
    *,
    tell: Callable[[str], None] = lambda line: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Certificate:
    """Checks the laws on a configuration, with a task of your own.

        import tensorflow as tf
        from engine import flags
        from engine.task import Scores
        from engine.verify import verify

        class Squared:
            metrics = ("error",)

            def __call__(self, model, batch, call):
                wanted = tf.one_hot(batch.targets, 10)
                error = tf.reduce_mean((model(batch.inputs, call) - wanted) ** 2, axis=-1)
                return Scores(error, (error,))  # each float32 [rows], a number for each row

        certificate = verify(flags.parse(["--dataset=digits"]), Squared, tell=print)
        assert certificate.passed, certificate.summary

    A dozen small runs are put together, in a temporary directory; `config.run.run_dir` is neither
    read nor written. Call it before anything makes a tensor: the CPU is split into virtual devices
    where the configuration asks for no others. TensorFlow's op determinism is on afterwards, and
    its global seed unset.

    Args:
      config: all options, as `engine.flags.parse` gives them.
      make_task: a function without arguments, or a class, that makes the task anew for each run,
        so that nothing which one run's task remembers helps another's; or a task, of which each
        run gets a copy; None: classification, as the options say.
      tell: is given lines as there are any: what is verified, then each law.
      interrupted: asked now and then whether to stop.

    Returns:
      The certificate. What a task raises when it is run a second time, or on several devices, is a
      law broken; what it raises the first time comes through.

    Raises:
      ValueError: for bad input, as in training; when TensorFlow has started with too few devices;
        when a task cannot be copied.
      RuntimeError: when TensorFlow fails.
      engine.verify.bench.Interrupted: when asked to stop.
    """
    started = stopwatch()
    with tempfile.TemporaryDirectory(prefix="tapeline-verify-") as folder:
        bench = Bench(config, make_task, folder, interrupted)
        try:
            tell(_heading(bench))
            verdicts: dict[str, Verdict] = {}
            for law in LAWS:
                same = law.compares and verdicts["L3"].passed is False
                verdict = verdicts[law.number] = _judged(law, bench, skipped=same)
                tell(verdict.line)
        except tf.errors.OpError as error:
            raise RuntimeError(f"cannot verify: {reason(error)}") from error
        finally:
            bench.close()
        return Certificate(
            verdicts=tuple(verdicts[number] for number in sorted(verdicts)),
            config={
                field.name: getattr(getattr(config, name), field.name)
                for name, section in sections()
                for field in dataclasses.fields(section)
            },
            data=_data(bench),
            device=_device(bench),
            versions={
                "tapeline": engine.__version__,
                "tensorflow": tf.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            seconds=stopwatch() - started,
        )


def _judged(law: Law, bench: Bench, *, skipped: bool) -> Verdict:
    started = stopwatch()
    try:
        finding = law.check(bench) if not skipped else _INCOMPARABLE
    except Interrupted:
        raise
    except Exception as error:  # what holds once must hold again, on other devices too
        words = " ".join(str(error).split())[:300]
        finding = Finding(False, "", f"raised {type(error).__name__}: {words}")
    seconds = stopwatch() - started
    return Verdict(law.number, law.name, *finding, seconds=seconds)


_INCOMPARABLE = not_compared("the same run twice is not the same, see L3")


def _data(bench: Bench) -> dict[str, object]:
    sample = bench.sample
    return {
        "dataset": f"{sample.whole.name}:{sample.whole.version}",
        "train": len(sample.source.train),
        "of_train": len(sample.whole.train),
        "evaluated": sample.scored_from,
        "examples_evaluated": sample.examples_scored,
        "of_evaluated": sample.examples_held_out,
        "feed": bench.feed_kind,
        "steps": STEPS,
        "steps_per_epoch": bench.home.whole.parts.steps_per_epoch,
        "saved_after": SAVED,
    }


def _device(bench: Bench) -> dict[str, object]:
    home, one, many, note = bench.topologies
    return {
        "device": home.words,
        "one": one.words,
        "many": many.words,
        "replicas": many.replicas,
        "note": note,
    }


def _length(bench: Bench) -> str:
    """How many steps are taken, and of how many the schedule is."""
    if bench.total_steps == bench.scheduled_steps:
        return f"the first {STEPS} of {bench.total_steps:,} steps"
    return (
        f"{STEPS} steps on the schedule of a run of {bench.scheduled_steps}, longer than this one "
        f"of {bench.total_steps:,}"
    )


def _heading(bench: Bench) -> str:
    """What is verified; the run on its own devices is taken first."""
    parts, config, sample = bench.home.whole.parts, bench.config, bench.sample
    whole = sample.whole
    home, _, many, note = bench.topologies
    beside = "" if many is home else f"; replicas: {many.words}"
    shape = "x".join(map(str, whole.image_shape))
    parameters = sum(row.parameters for row in models.rows(parts.model))
    lines = [
        f"tapeline {engine.__version__}, tensorflow {tf.__version__}, python "
        f"{platform.python_version()}, on {home.words}{beside}",
        f"note   {note}",
        f"data   {whole.name} {whole.version}: {len(sample.source.train):,} of "
        f"{len(whole.train):,} train, {sample.examples_scored:,} of "
        f"{sample.examples_held_out:,} {sample.scored_from}; images {shape}; "
        f"{bench.feed_kind} feed",
        f"model  {config.network.model}, {parameters:,} parameters, {config.precision.precision}",
        f"train  {_length(bench)}, {parts.steps_per_epoch} an epoch here; {narration.plan(config)}",
    ]
    return "\n".join(line for line in lines if line != "note   ")
