"""Tapeline's command: flags -> Config -> one mode.

    python run.py --flagfile=cpu.flags --run_dir=runs/mine

Exit status: 0 done; 2 bad input, with one line that says what to do; 130, 143 and 129 stopped by
SIGINT, SIGTERM and SIGHUP, after saving; 1 anything else.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence

from engine import contradictions, flags
from engine.config import Config
from engine.failure import StepError
from engine.keeping import run_directory
from engine.startup import Startup, import_tensorflow
from engine.training.guard import GuardError
from engine.workers.company import Company

# Imported when it is asked for. Training is apart: it looks at run_dir before TensorFlow comes.
MODULES = {
    "evaluate": "engine.reporting.scorer",
    "predict": "engine.serving.predict",
    "export": "engine.serving.export",
    "report": "engine.reporting.command",
    "verify": "engine.verify.command",
    "benchmark": "engine.benchmark.command",
    "tune": "engine.tune.command",
}

OF_RUNS = ("evaluate", "predict", "export")  # modes that need a run
TRAINING = ("train", "verify", "benchmark", "tune")  # modes that take steps


def main(arguments: Sequence[str]) -> int:
    """Runs one mode and gives the exit status."""
    startup = Startup()
    try:
        config = flags.parse(arguments)
        trained = run_directory.has_checkpoint(config.run.run_dir)
        if config.run.mode in OF_RUNS or (config.run.mode == "report" and trained):
            config = flags.parse(flags.of_run(config.run.run_dir, arguments))
        if config.run.mode in TRAINING:
            contradictions.refuse(config)
        if config.run.mode in MODULES:
            import_tensorflow()
            module = importlib.import_module(MODULES[config.run.mode])
            if config.run.mode == "report" and not trained:  # nor are the options those of a run
                return module.run_on_data(config)
            return module.run(config)
        if done := run_directory.finished(config):
            print(done)
            return 0
        with Company(config, dict(os.environ)) as company:
            before = run_directory.open_for_training(config) if company.is_chief else None
            startup.ended("python")
            import_tensorflow()
            startup.ended("tensorflow")
            from engine.training import trainer

            startup.ended("engine")
            return trainer.train(config, before, startup, company)
    except flags.HelpRequest as help_text:
        print(help_text)
        return 0
    except ValueError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:  # the engine makes TensorFlow's own errors such
        return _fail(f"{error}{_way_on(config, error)}", 1)
    except KeyboardInterrupt:
        return _fail("stopped before it began; nothing was written", 130)


def _way_on(config: Config, error: Exception) -> str:
    """What to do after a failure; empty where the error says it or no checkpoint was saved."""
    if config.run.mode != "train" or isinstance(error, GuardError):
        return ""
    if isinstance(error, StepError) and not error.step:  # the same command would fail again
        return "; no step has been taken: change what caused it before you run again"
    saved = run_directory.has_checkpoint(config.run.run_dir)
    return "; run the same command to go on from its checkpoint" if saved else ""


def _fail(text: str, status: int) -> int:
    """One line on standard error."""
    print("error:", " ".join(text.split()), file=sys.stderr)
    return status


def entry() -> None:
    """The installed command."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output, `head` say, has gone: nothing more to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    gc.freeze()  # what lives dies with the process: to look for cycles in it first takes a second
    sys.exit(status)


if __name__ == "__main__":
    entry()
