"""Parsing of the command line to a Config, and formatting of a Config as a flagfile.

absl parses with a separate `FlagValues`, so that flags defined by other modules are rejected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

import engine
from engine.config import arguments as function_arguments
from engine.config.documentation import heading, help_text, table
from engine.config.flag_texts import (
    default_run_dir,
    expand_flagfiles,
    given_to_run,
    options_file,
    run_dir_of,
    texts_of,
)
from engine.config.option import did_you_mean, names_in, written
from engine.config.schema import Config, option_fields, option_values, replaced, sections
from engine.runtime import user_code

# They may differ between workers; those of --load must have the same contents.
_PER_WORKER = ("run_dir", "load", "data_dir", "cache_dir", "progress")
_PATHS = ("run_dir", "data_dir", "cache_dir")


class HelpRequest(Exception):  # noqa: N818 - a request, not an error
    """Raised by `parse` for `--help`; the message is the help text."""


_DEFINES: dict[type, Any] = {
    bool: absl_flags.DEFINE_boolean,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
}


def _registry() -> absl_flags.FlagValues:
    registry = absl_flags.FlagValues()
    for field in option_fields():
        define = _DEFINES.get(type(field.default), absl_flags.DEFINE_string)
        default = written(field.default) if isinstance(field.default, tuple) else field.default
        define(field.name, default, field.metadata["help"], flag_values=registry)
    absl_flags.DEFINE_boolean("help", False, "show the options", flag_values=registry)
    return registry


def _define_arguments(registry: absl_flags.FlagValues, values: dict[str, Any]) -> list[str]:
    """Defines the flags of the arguments of registered functions; returns the flags' names.

    Flags of functions that the options in `values` do not select accept any text, without effect.
    `values` holds the values of all options.
    """
    types = {
        each.name: bool if each.type is bool else str
        for each in function_arguments.selected(values)
    }
    for option, name in function_arguments.with_flags():
        for each in function_arguments.arguments(option, name):
            types.setdefault(each.name, str)
    for name, kind in types.items():
        define = _DEFINES.get(kind, absl_flags.DEFINE_string)
        define(name, None, "", flag_values=registry)
    return list(types)


def _load(texts: dict[str, str]) -> str:
    """Imports the files of --load, else those of the run in run_dir; returns their absolute paths.

    The paths are separated by commas. `texts` holds the flags that are given. A script that calls
    `tapeline.main` counts as loaded.

    Raises:
      ValueError: if a file does not exist or raises an error.
    """
    text, source = texts.get("load"), ""
    if text is None:
        run_dir = run_dir_of(texts)
        path = options_file(run_dir)
        if os.path.isfile(path):
            with contextlib.suppress(ValueError):  # whoever reads the options names the problem
                text = given_to_run(run_dir).get("load")
            source = f"{path}: "
    paths = []
    for path in user_code.with_scripts(names_in(text or "")):
        paths.append(os.path.abspath(os.path.expanduser(path)))
        if not os.path.isfile(paths[-1]):
            problem = "is no file" if os.path.exists(paths[-1]) else "there is no such file"
            remedy = "give --load=FILE" if source else "give a Python file"
            raise ValueError(f"{source}--load={path}: {problem}; {remedy}")
    user_code.load(paths)
    return ",".join(paths)


def parse(arguments: Sequence[str], *, load: bool = True, strict: bool = True) -> Config:
    """Parses command-line arguments into a Config.

    First, this imports the files of --load; without that option, those of the run in run_dir, if
    there is one.

    Args:
      arguments: command-line arguments without the program's name, such as "--epochs=2".
      load: whether to import these files.
      strict: whether to refuse arguments of registered functions that the options do not select,
        such as "--model.depth=20" with "--model=cnn". In a flagfile they are ignored.

    Raises:
      HelpRequest: for --help.
      ValueError: for an unknown flag or argument, an invalid value, an unreadable flagfile or an
        error in a file of --load; the message names the flag, the argument or the file.
    """
    expanded = expand_flagfiles(arguments)
    texts = texts_of(expanded)
    loaded = _load(texts) if load else texts.get("load", "")
    registry = _registry()
    options = {field.name: field.default for field in option_fields()} | texts
    if strict:
        function_arguments.refuse_ignored(texts_of(arguments), options)
    more = _define_arguments(registry, options)
    try:
        rest = registry(["run.py", *expanded])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        hint = did_you_mean(error.flagname, [*option_names(), *more])
        message = f"unknown flag --{error.flagname}{hint or '; --help lists the flags'}"
        raise ValueError(message) from None
    except absl_flags.Error as error:
        message = " ".join(str(error).split())
        if message.startswith("Unknown"):
            message = f"u{message[1:]}"
        raise ValueError(message) from None
    if registry.help:
        raise HelpRequest(help_text())
    if rest:
        raise ValueError(f"unexpected argument {rest[0]!r}; options are written --name=value")
    values = {name: registry[name].value for name in option_names()} | {"load": loaded}
    return from_values(values | {n: registry[n].value for n in more if registry[n].present})


def _parse_integers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        message = "give whole numbers separated by commas, such as 512,512"
        raise ValueError(f"--{name}={text}: {message}") from None


def option_names() -> list[str]:
    """Returns the names of all options, in the order of docs/options.md."""
    return [field.name for field in option_fields()]


def from_values(values: dict[str, Any]) -> Config:
    """Builds a Config from option values by name; a missing option takes its default.

    `values` may hold arguments of registered functions, such as "model.depth"; other unknown names
    are ignored. A tuple may be given as text, such as "512,512". An empty run_dir becomes
    runs/DATASET-MODEL.

    Raises:
      ValueError: for an invalid value, an unknown argument, or an argument that needs a value; the
        message names the flag.
    """
    groups = {}
    for name, section in sections():
        chosen: dict[str, Any] = {}
        for field in dataclasses.fields(section):
            value = values.get(field.name, field.default)
            if isinstance(field.default, tuple) and isinstance(value, str):
                value = _parse_integers(field.name, value)
            if isinstance(value, str) and (value != value.strip() or len(value.splitlines()) > 1):
                raise ValueError(f"--{field.name}: must be one line without space around it")
            if field.name in _PATHS:
                value = os.path.expanduser(value)  # shells do not expand ~ after an equals sign
            chosen[field.name] = value
        groups[name] = section(**chosen)
    config = Config(**groups)
    given = {name: v for name, v in values.items() if function_arguments.split_name(name)}
    arguments = function_arguments.resolved(option_values(config) | given)
    config = dataclasses.replace(config, arguments=arguments)
    if config.run.run_dir:
        return config
    return replaced(config, run_dir=default_run_dir(config.data.dataset, config.model.model))


def flagfile(config: Config) -> str:
    """Returns the text of a flagfile that reproduces this Config, except its `mode`.

    So `--mode=verify --flagfile=RUN/config.flags` verifies, whichever of the two comes first.
    """
    lines = [
        "# Every option of this run. Go on with it, or do it again elsewhere:",
        "#   python run.py --flagfile=THIS_FILE [--run_dir=ANOTHER]",
    ]
    values = option_values(config)
    for _, section in sections():
        lines += ["", f"# {heading(section)}"]
        names = [f.name for f in dataclasses.fields(section) if f.name != "mode"]
        lines += [f"--{name}={written(values[name])}" for name in names]
    if config.arguments:
        lines += ["", "# Arguments of registered functions."]
    given = {name: value for name, value in config.arguments.items() if value is not None}
    lines += [f"--{name}={written(value)}" for name, value in given.items()]
    return "\n".join(lines) + "\n"


def digest(config: Config) -> str:
    """Returns the SHA-256, in hex, of what must be the same on all workers.

    This is the version of Tapeline, the files of --load and their local imports, and all options
    but those that may differ between workers, such as --run_dir.
    """
    excluded = tuple(f"--{name}=" for name in _PER_WORKER)
    shared = [line for line in flagfile(config).splitlines() if not line.startswith(excluded)]
    code = [f"{each['file']} {each['sha256']}" for each in user_code.digests()]
    return hashlib.sha256("\n".join([engine.__version__, *shared, *code]).encode()).hexdigest()


if __name__ == "__main__":  # python -m engine.config.flags > docs/options.md
    print(table(), end="")
