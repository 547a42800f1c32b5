"""Parses the command line and runs one mode.

Exit status: 0 for success; 2 for invalid input, with one line that says what to do; 130, 143 and
129 for SIGINT, SIGTERM and SIGHUP, which save a checkpoint if training has started; 1 for any other
failure.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from engine.assembly import run_directory
from engine.config import compatibility, flags
from engine.config.schema import Config
from engine.distributed.cluster import Cluster
from engine.runtime.errors import StepError
from engine.runtime.startup import Startup, import_tensorflow
from engine.trainer.bad_steps import TooManyBadStepsError

# Imported on use. Training is not listed: it checks run_dir before TensorFlow is imported.
MODULES = {
    "evaluate": "engine.reporting.evaluate_command",
    "predict": "engine.serving.predict",
    "export": "engine.serving.export",
    "report": "engine.reporting.command",
    "verify": "engine.verify.command",
    "benchmark": "engine.benchmark.command",
    "tune": "engine.tune.command",
}

OF_RUNS = ("evaluate", "predict", "export")  # modes that need a trained run
TRAINING = ("train", "verify", "benchmark", "tune")  # modes that take steps


def main(arguments: Sequence[str]) -> int:
    """Runs one mode and returns the exit status.

    Args:
      arguments: command-line arguments, without the program's name.
    """
    startup = Startup()
    try:
        config = flags.parse(arguments)
        trained = run_directory.has_checkpoint(config.run.run_dir)
        if config.run.mode in OF_RUNS or (config.run.mode == "report" and trained):
            config = flags.parse(flags.of_run(config.run.run_dir, arguments))
        if config.run.mode in TRAINING:
            compatibility.refuse(config)
        if config.run.mode in MODULES:
            import_tensorflow()
            module = importlib.import_module(MODULES[config.run.mode])
            if config.run.mode == "report" and not trained:  # there is no run to take options from
                return module.run_on_data(config)
            return module.run(config)
        if done := run_directory.finished(config):
            print(done)
            return 0
        with Cluster(config.devices, os.environ, flags.digest(config)) as cluster:
            before = run_directory.open_for_training(config) if cluster.is_chief else None
            startup.ended("python")
            import_tensorflow()
            startup.ended("tensorflow")
            from engine.trainer import trainer

            startup.ended("engine")
            return trainer.train(config, before, startup, cluster)
    except flags.HelpRequest as help_text:
        print(help_text)
        return 0
    except ValueError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:  # the engine converts TensorFlow's errors to these
        return _fail(f"{error}{_way_on(config, error)}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted before training started; nothing was written", 130)


def _way_on(config: Config, error: Exception) -> str:
    """Returns what to do after a failure; empty if the error says it or there is no advice."""
    if config.run.mode != "train" or isinstance(error, TooManyBadStepsError):
        return ""
    if isinstance(error, StepError) and not error.step:  # the same command would fail again
        return "; the first step failed: fix the cause before you run it again"
    saved = run_directory.has_checkpoint(config.run.run_dir)
    return "; run the same command to resume from its checkpoint" if saved else ""


def _fail(text: str, status: int) -> int:
    """Prints an error as one line on standard error and returns the exit status."""
    print("error:", " ".join(text.split()), file=sys.stderr)
    return status
