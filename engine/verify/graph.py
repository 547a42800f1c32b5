"""Finds untracked variables in the graph of a traced function; fingerprints the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from engine.models.tracing import nodes


def untracked_variables(function: Any, known: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Returns the variables that a ConcreteFunction reads or writes, without those in `known`."""
    tracked = {id(component) for variable in known for component in components(variable)}
    return [v for v in function.variables if tracked.isdisjoint(map(id, components(v)))]


def fingerprint(function: Any) -> Counter:
    """Returns how often a ConcreteFunction has each operation, by type and attributes.

    An attribute is, for example, the value of a constant. The operations in called functions count,
    too. Two traces of the same computation have the same fingerprint. Names are ignored, because
    they differ in each trace. A Python number that a trace depends on is a constant in the graph or
    has selected a Python branch, so another number gives another fingerprint.
    """
    return Counter((node.op, _attributes(node)) for node in nodes(function))


def _attributes(node: Any) -> tuple[tuple[str, bytes], ...]:
    """Returns (name, serialized value) of a node's attributes, sorted by name.

    Functions, strings, seeds and attributes whose name starts with an underscore are left out.
    """
    return tuple(
        (key, value.SerializeToString(deterministic=True))
        for key, value in sorted(node.attr.items())
        if not (key.startswith("_") or key in ("seed", "seed2"))
        and value.WhichOneof("value") not in ("func", "s")
        and not (value.list.func or value.list.s)
    )


def components(variable: Any) -> list[Any]:
    """Returns the variable and, if it is distributed, its per-replica components."""
    values = getattr(variable, "values", ())
    return [variable, *(values if isinstance(values, tuple) else ())]
