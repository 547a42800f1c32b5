"""Flags for the arguments of registered functions, of users and of some built-in networks::

    @tl.model
    def small(inputs, outputs, *, depth: int = 4):  # --model=small --model.depth=8

A keyword-only parameter is a flag unless the engine fills it in. Its type is that of the
annotation, or else of the default: int, float, bool, str, or a tuple of ints or floats.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, Union

from engine.config.option import did_you_mean, written
from engine.config.registry import Registry, import_attribute
from engine.runtime.user_code import place

# Options that select a registered function, and their registries.
_REGISTRIES = {
    "model": "engine.models.registry:NETWORKS",
    "task": "engine.tasks.registry:TASKS",
    "dataset": "engine.assembly.registry:SOURCES",
    "optimizer": "engine.optim.registry:OPTIMIZERS",
    "schedule": "engine.optim.registry:SCHEDULES",
}
_SCALARS = {"int": int, "float": float, "bool": bool, "str": str}
_SEQUENCES = (tuple, list, collections.abc.Sequence)
REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a registered function, and its flag."""

    name: str  # of the flag, such as "model.depth"
    type: type  # int, float, bool or str
    default: Any  # REQUIRED: none
    help: str
    is_tuple: bool = False  # whether the value is a tuple of `type`
    choices: tuple[str, ...] = ()  # values that a `Literal` allows; empty: any
    place: str = ""  # of the function, as "my.py:12: "

    def parsed(self, value: Any) -> Any:
        """Converts a value, or its text on the command line, to the type of the argument.

        Raises:
          ValueError: if the value does not have the type or is not one of the choices; the message
            starts with the place of the function in the user's code and names the flag.
        """
        flag = f"{self.place}--{self.name}={written(value)}"
        if self.is_tuple:
            parts = value.split(",") if isinstance(value, str) else value
            if not isinstance(parts, list | tuple):
                raise ValueError(f"{flag}: give values separated by commas")
            return tuple(self._number(flag, part) for part in parts if part != "")
        if self.type is str:
            if not isinstance(value, str) or value != value.strip() or len(value.splitlines()) > 1:
                raise ValueError(
                    f"{self.place}--{self.name}: must be one line without space around it"
                )
            if self.choices and value not in self.choices:
                hint = did_you_mean(value, self.choices)
                raise ValueError(f"{flag}: choose one of {', '.join(self.choices)}{hint}")
            return value
        if self.type is bool:
            if str(value).lower() not in ("true", "false"):
                raise ValueError(f"{flag}: give true or false")
            return str(value).lower() == "true"
        return self._number(flag, value)

    def _number(self, flag: str, value: Any) -> Any:
        kind = "a whole number" if self.type is int else "a number"
        kind = f"{kind}s separated by commas".removeprefix("a ") if self.is_tuple else kind
        try:
            number = self.type(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{flag}: give {kind}") from None
        if isinstance(value, float) and number != value and not math.isnan(value):
            raise ValueError(f"{flag}: give {kind}")
        if isinstance(number, int) and abs(number) >= 1 << 63:
            raise ValueError(f"{flag}: must fit in 64 bits")
        if math.isnan(number):
            raise ValueError(f"{flag}: give {kind}")
        return number


def registry(option: str) -> Registry:
    """Returns the registry of the functions that an option, such as "model", selects by name."""
    return import_attribute(_REGISTRIES[option])


def with_flags() -> Iterator[tuple[str, str]]:
    """Yields (option, name) of each function whose arguments are flags: ("model", "resnet")."""
    for option in _REGISTRIES:
        for name in registry(option).with_flags:
            yield option, name


def split_name(name: str) -> str:
    """Returns the option in an argument's name: "model" for "model.depth"; "" for other names."""
    option, dot, _ = name.partition(".")
    return option if dot and option in _REGISTRIES else ""


def selected(values: Mapping[str, Any]) -> list[Argument]:
    """Returns the arguments, that are flags, of the functions that the options select.

    `values` holds the values of options by name.

    Raises:
      ValueError: if a function has a parameter that cannot get a value.
    """
    return [
        argument
        for option in _REGISTRIES
        if (name := values.get(option)) in registry(option).with_flags
        for argument in arguments(option, str(name))
    ]


def refuse_ignored(given: Collection[str], values: Mapping[str, Any]) -> None:
    """Refuses arguments that only functions take which the options do not select.

    Args:
      given: names of flags, such as "model.depth", "nomodel.tied" or "epochs".
      values: values of options by name.

    Raises:
      ValueError: for the first such argument; the message names the arguments that the selected
        function takes.
    """
    taken = [argument.name for argument in selected(values)]
    known = {each.name for option, name in with_flags() for each in arguments(option, name)}
    for flag in given:
        name = flag if split_name(flag) else flag.removeprefix("no")
        option = split_name(name)
        if name not in known or name in taken:
            continue
        if option != "dataset" and values[option] not in registry(option):
            continue  # whoever looks it up names the problem
        own = [f"--{each}" for each in taken if split_name(each) == option]
        raise ValueError(
            f"--{flag}: --{option}={values[option]} has no such argument; it takes "
            f"{', '.join(own) or 'none'}"
        )


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the typed values of the arguments of all selected functions, by name of the flag.

    `values` holds the values of options, and those of the arguments that are given. Arguments of
    functions that are registered, but not selected, have no effect; `refuse_ignored` refuses them.

    Raises:
      ValueError: for a value of another type, a missing value or an unknown argument, or if a
        function has a parameter that cannot get a value.
    """
    found = {}
    for argument in selected(values):
        value = values.get(argument.name, argument.default)
        if value is REQUIRED:
            option = split_name(argument.name)
            raise ValueError(f"--{argument.name}: give it; --{option}={values[option]} needs it")
        found[argument.name] = None if value is None else argument.parsed(value)
    known = {each.name for option, name in with_flags() for each in arguments(option, name)}
    for name in values:
        if split_name(name) and name not in known:
            hint = did_you_mean(name, sorted(known))
            raise ValueError(f"unknown flag --{name}{hint or '; --help lists the flags'}")
    return found


def arguments(option: str, name: str) -> list[Argument]:
    """Returns the arguments of a registered function that are flags, in the parameters' order.

    Raises:
      ValueError: if the name is unknown, or if a parameter that the engine does not fill in has no
        default and cannot be a flag.
    """
    passed, factory = registry(option).passed, registry(option)[name]
    texts, found, where = _documented(factory), [], place(factory)
    for parameter in _signature(factory).parameters.values():
        if parameter.name in passed or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        kind = None
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kind = _type(parameter.annotation, parameter.default)
        if kind is not None:
            found.append(
                Argument(
                    f"{option}.{parameter.name}",
                    kind[0],
                    parameter.default,
                    texts.get(parameter.name, f"{parameter.name} of {name}"),
                    *kind[1:],
                    where,
                )
            )
        elif parameter.default is REQUIRED:
            remedy = (
                "annotate it with int, float, bool, str, or a tuple of ints or floats"
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY
                else f"the engine fills in {', '.join(sorted(passed)) or 'none'}; give it a "
                "default, or write it after *, and it becomes a flag"
            )
            raise ValueError(f"{where}--{option}={name}: parameter {parameter.name!r}: {remedy}")
    return found


def heading(option: str, name: str) -> str:
    """Returns the heading of a registered function's arguments in `--help`."""
    text = (inspect.getdoc(registry(option)[name]) or "").partition("\n")[0]
    return f"Arguments of --{option}={name}" + (f": {text}" if text else "")


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except Exception:  # an annotation of a name that exists for type checkers alone
        return inspect.signature(factory)


def _type(annotation: Any, default: Any) -> tuple[type, bool, tuple[str, ...]] | None:
    """Returns (type, is_tuple, choices) of a parameter's `Argument`; None if it can be no flag."""
    if isinstance(annotation, str):
        annotation = _SCALARS.get(annotation, REQUIRED)
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):  # such as int | None
        parts = tuple(part for part in parts if part is not type(None))
        return _type(parts[0], default) if len(parts) == 1 else None
    if origin is Literal:
        return (str, False, parts) if all(isinstance(part, str) for part in parts) else None
    if annotation in _SCALARS.values():
        return annotation, False, ()
    if origin in _SEQUENCES:
        elements = {part for part in parts if part is not Ellipsis}
        return (elements.pop(), True, ()) if elements in ({int}, {float}) else None
    if annotation is not REQUIRED:
        return None
    if isinstance(default, tuple):
        kinds = set(map(type, default)) or {int}
        if kinds <= {int, float}:
            return (float if float in kinds else int), True, ()
        return None
    return (type(default), False, ()) if type(default) in _SCALARS.values() else None


def _documented(factory: Callable[..., Any]) -> dict[str, str]:
    """Returns the descriptions in the "Args:" section of a factory's docstring, by parameter name.

    Of a class, the docstrings of the class and of `__init__` are read. The lines of a description
    are joined.
    """
    initializer = getattr(factory, "__init__", None) if inspect.isclass(factory) else None
    texts: dict[str, str] = {}
    for documented in (factory, initializer):
        _, found, section = (inspect.getdoc(documented) or "").partition("\nArgs:\n")
        name = ""
        for line in section.splitlines() if found else ():
            if line and not line.startswith(" "):
                break
            if match := re.match(r" {1,4}\*{0,2}(\w+)(?: \([^)]*\))?: *(.*)", line):
                name, texts[match[1]] = match[1], match[2]
            elif name and line.strip():
                texts[name] += f" {line.strip()}"
    return texts
