"""Parses the command line into a Config, and formats options as flagfile, help and Markdown.

Uses absl's flag parser with a separate registry, so that flags defined by TensorFlow's modules are
rejected. `--flagfile=FILE` works as in absl.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

import engine
from engine.config.option import did_you_mean, written
from engine.config.registry import Registry
from engine.config.schema import Config, sections

_OWN = ("run_dir", "data_dir", "cache_dir", "progress")  # may differ between workers
# `affects` of an option -> (its name in the docs, the effect of a changed value on resume).
_EFFECTS = {
    "trajectory": ("fixed", "it is refused, because the run would be another one"),
    "length": ("length", "the run becomes longer, or ends earlier if it is not past that step"),
    "record": ("recorded", "it counts from here on, and is refused when no step is left"),
    "end": ("end", "the end of a finished run is done again, in all its files"),
    "": ("free", "it counts for this command"),
}
_PATHS = ("run_dir", "data_dir", "cache_dir")


class HelpRequest(Exception):  # noqa: N818 - a request, not an error
    """Raised when the command line asks for help; the message is the help text."""


def _parse_integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        raise ValueError("give whole numbers separated by commas, such as 512,512") from None


def _registry() -> absl_flags.FlagValues:
    registry = absl_flags.FlagValues()
    define: dict[type, Any] = {
        bool: absl_flags.DEFINE_boolean,
        int: absl_flags.DEFINE_integer,
        float: absl_flags.DEFINE_float,
        str: absl_flags.DEFINE_string,
        tuple: absl_flags.DEFINE_string,
    }
    for _, section in sections():
        for field in dataclasses.fields(section):
            default = field.default
            text = written(default) if isinstance(default, tuple) else default
            define[type(default)](field.name, text, field.metadata["help"], flag_values=registry)
    absl_flags.DEFINE_boolean("help", False, "show the options", flag_values=registry)
    return registry


def _one_line(error: Exception) -> str:
    """Returns the message of an error of absl as one line."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[0].lower() + text[1:] if text.startswith("Unknown") else text


def _options() -> dict[str, type]:
    return {f.name: type(f.default) for _, s in sections() for f in dataclasses.fields(s)}


def parse(arguments: Sequence[str]) -> Config:
    """Parses command-line arguments, without the program's name, into a Config.

    Raises:
      HelpRequest: for --help.
      ValueError: for an unknown flag or argument, an invalid value or an unreadable flagfile; names
        the flag or argument.
    """
    registry = _registry()
    try:
        rest = registry(["run.py", *arguments])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        hint = did_you_mean(error.flagname, list(_options()))
        message = f"unknown flag --{error.flagname}{hint or '; --help lists the flags'}"
        raise ValueError(message) from None
    except absl_flags.CantOpenFlagFileError as error:
        cause = error.__context__
        assert isinstance(cause, OSError)
        raise ValueError(f"--flagfile={cause.filename}: {cause.strerror}") from None
    except UnicodeDecodeError:
        files = " ".join(argument for argument in arguments if "flagfile" in argument)
        raise ValueError(f"{files}: is no text file") from None
    except absl_flags.Error as error:
        raise ValueError(_one_line(error)) from None
    if registry.help:
        raise HelpRequest(help_text())
    if rest:
        raise ValueError(f"unexpected argument {rest[0]!r}; options are written --name=value")
    return from_values({name: registry[name].value for name in _options()})


def of_run(run_dir: str, arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of an existing run, followed by `arguments`, which override them.

    Raises:
      ValueError: when there is no run in `run_dir`, or its options cannot be parsed.
    """
    path = os.path.join(os.path.expanduser(run_dir), "config.flags")
    if not os.path.isfile(path):
        raise ValueError(f"--run_dir={run_dir}: there is no run here; train one first")
    return [*of_file(path), *arguments]


def of_file(path: str) -> list[str]:
    """Returns arguments that reproduce a run from its config.flags, also one of an older version.

    The legacy values of options come first, for a run that predates an option. The options in the
    file override them.

    Raises:
      ValueError: when the file cannot be parsed as options.
    """
    config = parse([f"--flagfile={path}"])
    given = {
        field.name: getattr(getattr(config, name), field.name)
        for name, section in sections()
        for field in dataclasses.fields(section)
    }
    legacy = [
        f"--{field.name}={written(field.metadata['legacy'])}"
        for _, section in sections()
        for field in dataclasses.fields(section)
        if field.metadata["legacy"] is not None
        and (not field.metadata["legacy_with"] or given[field.metadata["legacy_with"]])
    ]
    return [*legacy, f"--flagfile={path}"]


def from_values(values: dict[str, Any]) -> Config:
    """Builds a Config from option values by name; a missing option takes its default.

    Raises:
      ValueError: for an invalid value; names the flag.
    """
    parts = {}
    for name, section in sections():
        chosen: dict[str, Any] = {}
        for field in dataclasses.fields(section):
            value = values.get(field.name, field.default)
            if isinstance(field.default, tuple) and isinstance(value, str):
                try:
                    value = _parse_integers(value)
                except ValueError as error:
                    raise ValueError(f"--{field.name}={value}: {error}") from None
            if isinstance(value, str) and (value != value.strip() or len(value.splitlines()) > 1):
                raise ValueError(f"--{field.name}: must be one line without space around it")
            if field.name in _PATHS:
                value = os.path.expanduser(value)  # shells do not expand ~ after an equals sign
            chosen[field.name] = value
        parts[name] = section(**chosen)
    config = Config(**parts)
    if not config.run.run_dir:
        dataset = config.data.dataset.rstrip("/").split("/")[-1].replace(":", "-")
        run_dir = os.path.join("runs", f"{dataset}-{config.model.model}")
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, run_dir=run_dir))
    return config


def flagfile(config: Config) -> str:
    """Returns the text of a flagfile that reproduces this Config."""
    lines = ["# Every option of this run. Go on with it, or do it again elsewhere:"]
    lines.append("#   python run.py --flagfile=THIS_FILE [--run_dir=ANOTHER]")
    for name, section in sections():
        lines.append("")
        lines.append(f"# {section.__doc__.splitlines()[0]}")
        values = getattr(config, name)
        lines += [
            f"--{field.name}={written(getattr(values, field.name))}"
            for field in dataclasses.fields(section)
        ]
    return "\n".join(lines) + "\n"


def digest(config: Config) -> str:
    """Returns the SHA-256, in hex, of the version and the options that all workers must share."""
    lines = flagfile(config).splitlines()
    shared = [line for line in lines if not line.startswith(tuple(f"--{name}=" for name in _OWN))]
    return hashlib.sha256("\n".join([engine.__version__, *shared]).encode()).hexdigest()


def _described(field: dataclasses.Field, *, built_in: bool = False) -> str:
    """Returns an option's help line, with its choices unless the line already names them all.

    Args:
      field: field that declares the option.
      built_in: whether to omit names registered by users.
    """
    choices = field.metadata["choices"] or field.metadata["any_of"]
    if built_in and isinstance(choices, Registry):
        choices = choices.built_in
    missing = [choice for choice in choices if choice not in field.metadata["help"]]
    added = () if built_in else field.metadata["registered"]()
    more = f"; registered: {', '.join(added)}" if added else ""
    return field.metadata["help"] + (f": {', '.join(choices)}" if missing else "") + more


def help_text() -> str:
    """Returns the text of `--help`."""
    lines = ["usage: python run.py [--flagfile=FILE] [--OPTION=VALUE ...]", ""]
    lines.append("Run the same command again to resume an interrupted run.")
    for _, section in sections():
        lines += ["", section.__doc__.splitlines()[0]]
        for field in dataclasses.fields(section):
            default = written(field.default)
            lines.append(f"  --{field.name}={default}")
            lines.append(f"      {_described(field)}")
    return "\n".join(lines)


def table() -> str:
    """Returns the text of docs/options.md: the options as Markdown tables."""
    lines = [
        "# Options",
        "",
        "Written by `python -m engine.config.flags > docs/options.md`.",
        "Give them as `--NAME=VALUE`, or a line each in a file for `--flagfile=FILE`; the later",
        "one counts. The column *resume* says what another value means for a run that is resumed:",
        *(f"*{effect}*, {meaning};" for effect, meaning in _EFFECTS.values()),
    ]
    lines[-1] = lines[-1].rstrip(";") + "."
    for _, section in sections():
        lines += ["", f"## {section.__doc__.splitlines()[0].rstrip('.')}", ""]
        lines += [f"Declared in `{section.__module__.replace('.', '/')}.py`.", ""]
        lines += ["| option | default | resume | meaning |", "|---|---|---|---|"]
        for field in dataclasses.fields(section):
            default = f"`{written(field.default)}`" if written(field.default) else "(empty)"
            effect, _ = _EFFECTS[field.metadata["affects"]]
            meaning = _described(field, built_in=True)
            lines.append(f"| `--{field.name}` | {default} | {effect} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":  # python -m engine.config.flags > docs/options.md
    print(table(), end="")
