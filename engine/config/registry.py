"""Registries, which map the names that an option accepts to factories::

    OPTIMIZERS = Registry("optimizer", {"lion": "engine.optim.lion:lion"})

    @OPTIMIZERS.register  # in a user's file
    def mine(beta_1: float) -> Optimizer: ...

A built-in factory is imported on use, so the names are known before TensorFlow is imported.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from engine.config.option import did_you_mean
from engine.runtime.user_code import place


def import_attribute(path: str) -> Any:
    """Imports the module of a path "module:attribute", and returns the attribute."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Mapping[str, Any]):
    """A mapping from names to factories, in the order of registration.

    `kind` is a noun for messages, such as "optimizer"; `paths` are the import paths of the built-in
    factories, "module:attribute", by name; `passed` are the names of the parameters that the engine
    fills in. Other keyword-only parameters become flags (see `engine.config.arguments`): of all
    factories that users register, and of the built-in ones in `with_flags`, whose modules do not
    import TensorFlow.
    """

    def __init__(
        self,
        kind: str,
        paths: Mapping[str, str],
        passed: Collection[str] = (),
        with_flags: Collection[str] = (),
    ) -> None:
        self.kind, self.passed, self._with_flags = kind, frozenset(passed), tuple(with_flags)
        self._entries: dict[str, Any] = dict(paths)

    def register(self, name: str | Callable[..., Any]) -> Any:
        """Registers the decorated factory under a name, which the option then accepts.

        Used as `@REGISTRY.register("name")`, or as `@REGISTRY.register`, which uses the factory's
        `__name__` in snake case.

        Raises:
          ValueError: if the name is registered already or is not a Python identifier.
        """
        if callable(name):
            snake_case = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.__name__).lower()
            return self.register(snake_case)(name)
        noun = f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"
        if not name.isidentifier():
            raise ValueError(f"the name of {noun} must be a Python identifier, got {name!r}")
        if name in self._entries:
            where = place(self._entries[name]).rstrip(": ")
            where = f" in {where}" if where else ""
            raise ValueError(
                f"{noun} named {name!r} is registered already{where}; choose another name"
            )

        def add(factory: Any) -> Any:
            self._entries[name] = factory
            return factory

        return add

    def __getitem__(self, name: str) -> Any:
        """Returns the factory registered under a name; a built-in one is imported on use.

        Raises:
          ValueError: if the name is unknown.
        """
        if name not in self._entries:
            hint = did_you_mean(name, tuple(self)) or ";"
            raise ValueError(f"unknown {self.kind} {name!r}{hint} known: {', '.join(self)}")
        entry = self._entries[name]
        return import_attribute(entry) if isinstance(entry, str) else entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def built_in(self) -> tuple[str, ...]:
        """Names of the built-in factories, in the order of `paths`."""
        return tuple(name for name, entry in self._entries.items() if isinstance(entry, str))

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the factories that `register` has added, in the order of registration."""
        return tuple(name for name, entry in self._entries.items() if not isinstance(entry, str))

    @property
    def with_flags(self) -> tuple[str, ...]:
        """Names of the factories whose keyword-only parameters are flags, built-in ones first."""
        return (*self._with_flags, *self.added)


def parameters(factory: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of a factory's parameters; options with these names are passed to it."""
    return frozenset(inspect.signature(factory).parameters)


def call(what: str, factory: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Calls a registered factory with the values of its parameters, and returns the result.

    Args:
      what: what the factory is, for the error message, such as "the network cnn".
      factory: factory to call.
      values: values by parameter name; names that are no parameters of the factory are ignored.

    Raises:
      ValueError: if a parameter has neither a value nor a default.
    """
    required = [
        name
        for name, each in inspect.signature(factory).parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    if missing := [name for name in required if name not in values]:
        raise ValueError(
            f"{what} takes {', '.join(missing)}: its parameters can be {', '.join(values)}, and "
            "others with a default"
        )
    return factory(**{name: values[name] for name in parameters(factory) & values.keys()})
