"""Documentation of the options: the text of `--help`, and docs/options.md."""

from __future__ import annotations

import dataclasses

from engine.config import arguments as function_arguments
from engine.config.option import written
from engine.config.registry import Registry
from engine.config.schema import sections

# `affects` of an option -> (its name in the docs, the effect of a changed value on resume).
_EFFECTS = {
    "trajectory": ("fixed", "it is refused, because the run would be another one"),
    "length": ("length", "the run becomes longer, or ends earlier if it is not past that step"),
    "record": ("recorded", "it counts from here on, and is refused when no step is left"),
    "end": ("end", "the end of a finished run is done again, in all its files"),
    "": ("free", "it counts for this command"),
}


def heading(section: type) -> str:
    """Returns the heading of a group of options: the first line of the dataclass's docstring."""
    return str(section.__doc__).splitlines()[0]


def _description(field: dataclasses.Field, *, built_in: bool = False) -> str:
    """Returns an option's help, followed by its choices and the names that users registered.

    If the help mentions every choice, the choices are not repeated. If `built_in`, names that users
    registered are left out.
    """
    help, choices = field.metadata["help"], field.metadata["choices"] or field.metadata["any_of"]
    if built_in and isinstance(choices, Registry):
        choices = choices.built_in
    registered = () if built_in else field.metadata["registered"]()
    if any(choice not in help for choice in choices):
        help += f": {', '.join(choices)}"
    return f"{help}; registered: {', '.join(registered)}" if registered else help


def help_text() -> str:
    """Returns the text of `--help`."""
    lines = [
        "usage: python run.py [--flagfile=FILE] [--OPTION=VALUE ...]",
        "",
        "Run the same command again to resume an interrupted run.",
    ]
    for _, section in sections():
        lines += ["", heading(section)]
        for field in dataclasses.fields(section):
            lines.append(f"  --{field.name}={written(field.default)}")
            lines.append(f"      {_description(field)}")
    for option, name in function_arguments.with_flags():
        if listed := function_arguments.arguments(option, name):
            lines += ["", function_arguments.heading(option, name)]
        for each in listed:
            required = each.default is function_arguments.REQUIRED
            default = "" if required or each.default is None else written(each.default)
            lines += [f"  --{each.name}={default}", f"      {each.help}"]
    return "\n".join(lines)


def table() -> str:
    """Returns the text of docs/options.md: the options as Markdown tables."""
    lines = [
        "# Options",
        "",
        "Written by `python -m engine.config.flags > docs/options.md`.",
        "Give them as `--NAME=VALUE`, or a line each in a file for `--flagfile=FILE`; the later",
        "one counts. The column *resume* says what another value means for a run that is resumed:",
        ";\n".join(f"*{effect}*, {meaning}" for effect, meaning in _EFFECTS.values()) + ".",
    ]
    for _, section in sections():
        lines += ["", f"## {heading(section).rstrip('.')}", ""]
        lines += [f"Declared in `{section.__module__.replace('.', '/')}.py`.", ""]
        lines += ["| option | default | resume | meaning |", "|---|---|---|---|"]
        for field in dataclasses.fields(section):
            default = f"`{text}`" if (text := written(field.default)) else "(empty)"
            effect, _ = _EFFECTS[field.metadata["affects"]]
            description = _description(field, built_in=True)
            lines.append(f"| `--{field.name}` | {default} | {effect} | {description} |")
    for option, name in function_arguments.with_flags():
        if name in function_arguments.registry(option).added:
            continue
        lines += ["", f"## {function_arguments.heading(option, name).rstrip('.')}", ""]
        lines += ["All are *fixed*.", "", "| argument | default | meaning |", "|---|---|---|"]
        for each in function_arguments.arguments(option, name):
            lines.append(f"| `--{each.name}` | `{written(each.default)}` | {each.help} |")
    return "\n".join(lines) + "\n"
