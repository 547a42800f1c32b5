"""Options whose value is "auto" in a process: decided, kept by a run, checked, reported.

oneDNN is turned on or off before TensorFlow is imported, from the command line as it is written and
the run's config.flags; the precision is chosen when it is known which devices compute
(`engine.assembly.precision`). A run keeps both: its config.flags holds what was chosen, and a
resume uses that on any processor. Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from engine.assembly import run_directory
from engine.assembly.processor_choices import (
    ONEDNN,
    ComputeDevices,
    Network,
    chosen,
    network_of,
)
from engine.config import flag_texts
from engine.config.schema import Config, replaced
from engine.models.registry import kind
from engine.runtime import onednn
from engine.runtime.processor import this_processor

_OF_RUNS = ("evaluate", "predict", "export", "report")  # modes that take a run's options


def prepare(arguments: Sequence[str]) -> None:
    """Turns oneDNN on or off for these command-line arguments, before TensorFlow is imported.

    It must be called before the arguments are parsed, because `--load` imports TensorFlow. Invalid
    arguments have no effect; whoever parses them names the problem. Does nothing if TensorFlow is
    imported, or if the user's own variable is set.
    """
    given: dict[str, str] = {}
    run: dict[str, str] | None = None
    with contextlib.suppress(ValueError, OSError):
        given = flag_texts.given(arguments)
        run_dir, mode = flag_texts.run_dir_of(given), given.get("mode", "train")
        if run_directory.has_checkpoint(run_dir) and mode in ("train", *_OF_RUNS):
            run = flag_texts.given_to_run(run_dir)
    value = given.get("onednn", "auto")
    if value == "auto" and run is not None:
        value = run.get("onednn", "")  # a run of an older version: as TensorFlow decides
    if value == "auto":
        precision, model = given.get("precision", "float32"), given.get("model", "cnn")
        value = chosen(ONEDNN, ComputeDevices(this_processor()), Network(kind(model)), precision)
    onednn.prepare(value if value in ("on", "off") else "")


def kept(config: Config) -> Config:
    """Returns a configuration with what its run has kept in place of "auto".

    Only modes that continue or use a run keep something, and only of a run with a checkpoint. A
    config.flags that cannot be read keeps nothing; whoever reads it next names the problem.
    """
    if config.run.mode not in ("train", *_OF_RUNS) or config.run.resume == "never":
        return config
    before = None
    with contextlib.suppress(ValueError, OSError):
        if run_directory.has_checkpoint(config.run.run_dir):
            before = run_directory.read_options(config.run.run_dir)
    if before is None:
        return config
    values = {}
    variable = onednn.of_environment()
    if config.devices.onednn == "auto" or variable == before.devices.onednn:
        values["onednn"] = before.devices.onednn  # a variable that wins now won before
    if config.precision.precision == "auto":
        values["precision"] = before.precision.precision
    return replaced(config, **values)


def settled(config: Config, *, resumes: bool = False) -> Config:
    """Returns a configuration whose `--onednn` says what holds in this process.

    TensorFlow must be imported. A value that the system cannot offer stays, because the run may
    come from another system and return to it.

    Args:
      config: result of `kept`.
      resumes: whether the configuration resumes a run.

    Raises:
      ValueError: if oneDNN is not as `config` asks, and TensorFlow was imported before it could be
        chosen, or the user's own variable says another thing than the run that is resumed.
    """
    asked, now = config.devices.onednn, onednn.state()
    variable = onednn.of_environment()
    if asked in ("auto", now):
        return replaced(config, onednn=now)
    if config.run.mode in _OF_RUNS or not this_processor().has_onednn:
        return config
    if variable and resumes:
        raise ValueError(
            f"{onednn.VARIABLE}={os.environ[onednn.VARIABLE]}: the run in {config.run.run_dir} was "
            f"started with --onednn={asked}, and other kernels round differently: unset the "
            "variable, or give another --run_dir"
        )
    if not variable:
        raise ValueError(
            f"--onednn={asked}: TensorFlow is imported already, with oneDNN {now}: set "
            f"{onednn.VARIABLE}={int(asked == 'on')} in the environment, or start the command "
            "before anything imports TensorFlow"
        )
    return replaced(config, onednn=now)  # the variable wins, and `notes` says so


def notes(config: Config) -> list[str]:
    """Returns lines on oneDNN for the start of a run: [] if the option decides.

    Args:
      config: options of the run, whose `--onednn` may still be "auto".
    """
    now = onednn.state()
    if onednn.of_environment():
        variable = f"{onednn.VARIABLE}={os.environ[onednn.VARIABLE]}"
        return [f"oneDNN is {now}: the environment has {variable}, which wins over --onednn"]
    if config.devices.onednn in ("auto", now):
        devices, network = ComputeDevices(this_processor()), network_of(config)
        choice = chosen(ONEDNN, devices, network, config.precision.precision)
        if not onednn.was_late() or choice == now:
            return []
        return [
            f"oneDNN is {now}: TensorFlow was imported before Tapeline could turn it {choice}; for "
            f"a new run, set {onednn.VARIABLE}={int(choice == 'on')} in the environment"
        ]
    return [
        f"oneDNN is {now}, although the run has --onednn={config.devices.onednn}: TensorFlow has "
        "none on this system; results differ by rounding"
    ]
