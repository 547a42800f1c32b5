"""Parses the command line and runs one mode, such as training, evaluation or export.

Exit status: 0 for success; 2 for invalid input, with one line that states the remedy, and for an
error in a file of `--load` before the first step, with one line that says where it is; 130, 143 and
129 for SIGINT, SIGTERM and SIGHUP, which save a checkpoint if training has started; 1 otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from engine.assembly import automatic_options, run_directory
from engine.config import compatibility, flag_texts, flags
from engine.config.schema import Config
from engine.distributed.cluster import Cluster
from engine.runtime.errors import OutOfMemoryError, StepError, is_out_of_memory
from engine.runtime.startup import Startup, import_tensorflow
from engine.runtime.user_code import UserCodeError, described, user_code_location
from engine.trainer.bad_steps import TooManyBadStepsError

# Imported on use. Training is not listed: it checks run_dir before TensorFlow is imported.
_MODULES = {
    "evaluate": "engine.reporting.evaluate_command",
    "predict": "engine.serving.predict",
    "export": "engine.serving.export",
    "report": "engine.reporting.command",
    "inspect": "engine.inspection.command",
    "verify": "engine.verify.command",
    "benchmark": "engine.benchmark.command",
    "tune": "engine.tune.command",
}

_OF_RUNS = ("evaluate", "predict", "export", "report")  # modes that take a run's options
_TRAINING = ("train", "inspect", "verify", "benchmark", "tune")  # modes that take steps


def main(arguments: Sequence[str]) -> int:
    """Runs Tapeline with options such as "--epochs=2"; prints errors; returns the exit status.

    Raises:
      BrokenPipeError: if the reader of standard output has exited.
      Exception: an error that is no ValueError, OSError or RuntimeError, unless a user's code
        raises it before the first step.
    """
    startup = Startup()
    config = None
    try:
        automatic_options.prepare(arguments)
        of_run = flag_texts.given(arguments).get("mode") in _OF_RUNS  # which selects the functions
        config = flags.parse(arguments, strict=not of_run)
        mode, run_dir = config.run.mode, config.run.run_dir
        report_on_data = mode == "report" and not run_directory.has_checkpoint(run_dir)
        if mode == "evaluate" and config.report.follow:
            run_directory.await_checkpoint(run_dir, config.report.follow_timeout)
        if mode in _OF_RUNS and not report_on_data:
            automatic_options.prepare(arguments)  # `await_checkpoint` may have waited for the run
            config = flags.parse(flag_texts.of_run(run_dir, arguments))
        if mode in _TRAINING:
            compatibility.refuse(config)
        asked, config = config, automatic_options.kept(config)
        if mode in _MODULES:
            import_tensorflow()
            config = _settled(config)
            module = importlib.import_module(_MODULES[mode])
            return module.run_on_data(config) if report_on_data else module.run(config)
        if message := run_directory.finished(config):
            print(message)
            return 0
        with Cluster(config.devices, os.environ, flags.digest(asked)) as cluster:
            before = run_directory.open_for_training(config) if cluster.is_chief else None
            startup.ended("python")
            import_tensorflow()
            config = automatic_options.settled(config, resumes=before is not None)
            startup.ended("tensorflow")
            from engine.trainer import command

            startup.ended("engine")
            return command.train(config, before, startup, cluster)
    except flags.HelpRequest as help_text:
        print(help_text)
        return 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _fail("interrupted before training started; nothing was written", 130)
    except Exception as error:
        if isinstance(error, OutOfMemoryError):  # which says it itself, also of a user's line
            return _fail(str(error), 1)
        trained = "step" in startup.seconds
        if isinstance(error, UserCodeError) or (not trained and user_code_location(error)):
            return _fail(described(error), 2)
        if isinstance(error, ValueError):
            return _fail(str(error), 2)
        if isinstance(error, (OSError, RuntimeError)):  # the engine converts TensorFlow's errors
            return _fail(f"{error}{_advice(config, error)}", 1)
        if isinstance(error, MemoryError):
            advice = _advice(config, error)
            return _fail(f"the host has too little memory: {error}; try --feed=stream{advice}", 1)
        if (failed := _of_tensorflow(error)) is not None:
            return _fail(f"TensorFlow failed: {failed}{_advice(config, error)}", 1)
        raise


def _settled(config: Config) -> Config:
    """Returns the configuration of a mode that trains no run, without "auto" of the processor."""
    from engine.assembly import precision

    return precision.resolved(automatic_options.settled(config))


def _of_tensorflow(error: Exception) -> str | None:
    """Returns the message of a `tf.errors.OpError` in one line; None for other errors."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return None
    from pipelines import reason

    return reason(error)


def _advice(config: Config | None, error: Exception) -> str:
    """Returns advice to append to the message of a failed run's error; "" if there is none."""
    if config is None or isinstance(error, TooManyBadStepsError):
        return ""
    if config.run.mode != "train":
        return _memory_advice(config, error)
    if isinstance(error, StepError) and not error.step:  # the same command would fail again
        return "; the first step failed: fix the cause before you run it again"
    saved = run_directory.has_checkpoint(config.run.run_dir)
    return "; run the same command to resume from its checkpoint" if saved else ""


def _memory_advice(config: Config, error: Exception) -> str:
    """Returns what to reduce if a device ran out of memory in a mode that keeps no run; or ""."""
    if not is_out_of_memory(error):
        return ""
    training = config.training
    if isinstance(error, StepError):
        return (
            f"; out of memory: give --accumulate={2 * training.accumulate}, or a smaller "
            f"--global_batch_size than {training.global_batch_size}"
        )
    size = training.evaluation_batch_size
    return f"; out of memory: give a smaller batch, such as --evaluation_batch_size={-(-size // 4)}"


def _fail(text: str, status: int) -> int:
    """Prints an error as one line on standard error; returns `status`, for `main` to return."""
    print("error:", " ".join(text.split()), file=sys.stderr)
    return status
