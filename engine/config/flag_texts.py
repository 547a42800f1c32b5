"""Texts of flags before they are parsed: of a command line, of flagfiles, of a run's options."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from engine.config.option import written
from engine.config.schema import option_fields


def expand_flagfiles(arguments: Sequence[str]) -> list[str]:
    """Returns the command-line arguments with each --flagfile replaced by the lines of the file.

    Raises:
      ValueError: if a flagfile cannot be read.
    """
    try:
        return absl_flags.FlagValues().read_flags_from_files(list(arguments))
    except absl_flags.CantOpenFlagFileError as error:
        cause = error.__context__
        assert isinstance(cause, OSError)
        raise ValueError(f"--flagfile={cause.filename}: {cause.strerror}") from None
    except UnicodeDecodeError:
        files = " ".join(argument for argument in arguments if "flagfile" in argument)
        raise ValueError(f"{files}: is no text file") from None
    except absl_flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from None


def texts_of(expanded: Sequence[str]) -> dict[str, str]:
    """Returns the text that is given last for each flag, by name.

    The text follows "="; without "=", it is the next argument.
    """
    texts = {}
    for argument, following in itertools.zip_longest(expanded, expanded[1:], fillvalue=""):
        name, equals, text = argument.partition("=")
        if name.startswith("-"):
            texts[name.lstrip("-")] = text if equals else following
    return texts


def given(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the text of each flag in command-line arguments and their flagfiles, by name.

    The values are not checked, and files of --load are not imported.

    Raises:
      ValueError: if a flagfile cannot be read.
    """
    return texts_of(expand_flagfiles(arguments))


def given_to_run(run_dir: str) -> dict[str, str]:
    """Returns the text of each flag in the config.flags of a run, by name; {} without this file.

    Raises:
      ValueError: if the file cannot be read.
    """
    path = options_file(run_dir)
    return given([f"--flagfile={path}"]) if os.path.isfile(path) else {}


def run_dir_of(texts: dict[str, str]) -> str:
    """Returns the run directory for a result of `given`."""
    values: dict[str, Any] = {field.name: field.default for field in option_fields()} | texts
    run_dir = values["run_dir"] or default_run_dir(values["dataset"], values["model"])
    return os.path.expanduser(run_dir)


def of_run(run_dir: str, arguments: Sequence[str]) -> list[str]:
    """Returns command-line arguments that reproduce the options of a run, followed by `arguments`.

    So `arguments` override the options of the run.

    Raises:
      ValueError: if there is no run in `run_dir`, or if its config.flags cannot be read.
    """
    path = options_file(run_dir)
    if not os.path.isfile(path):
        raise ValueError(f"--run_dir={run_dir}: there is no run here; train one first")
    return [*of_file(path), *arguments]


def options_file(run_dir: str) -> str:
    """Returns the path of the config.flags of a run."""
    return os.path.join(os.path.expanduser(run_dir), "config.flags")


def of_file(path: str) -> list[str]:
    """Returns command-line arguments that reproduce a run, given the path of its config.flags.

    The arguments start with the legacy values of options, which apply if the file is of an older
    version and lacks these options.

    Raises:
      ValueError: if the file cannot be read.
    """
    texts = texts_of(expand_flagfiles([f"--flagfile={path}"]))
    legacy = [
        f"--{field.name}={written(field.metadata['legacy'])}"
        for field in option_fields()
        if field.metadata["legacy"] is not None
        and (not field.metadata["legacy_with"] or texts.get(field.metadata["legacy_with"]))
    ]
    return [*legacy, f"--flagfile={path}"]


def default_run_dir(dataset: str, model: str) -> str:
    """Returns the run directory for an empty --run_dir, runs/DATASET-MODEL."""
    dataset = dataset.rstrip("/").split("/")[-1].replace(":", "-")
    return os.path.join("runs", f"{dataset}-{model}")
