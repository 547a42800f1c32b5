"""Finds random operations and variables in the graph of a traced function; fingerprints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

# Stateful random operations; checkpoints do not contain the state of their generators.
_GENERATORS = frozenset(
    (
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
        *("ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson", "RandomPoissonV2"),
        *("RandomShuffle", "Multinomial", "NonDeterministicInts", "RngSkip", "RngReadAndSkip"),
        *("StatefulUniform", "StatefulUniformInt", "StatefulUniformFullInt"),
        *("StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal"),
        *("StatefulRandomBinomial",),
    )
)


def hidden_random_ops(function: Any) -> list[str]:
    """Returns the types of the stateful random operations in a ConcreteFunction, sorted."""
    return sorted({node.op for node in _nodes(function)} & _GENERATORS)


def untracked_variables(function: Any, known: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Returns the variables that a ConcreteFunction reads or writes, without those in `known`."""
    tracked = {id(component) for variable in known for component in _components(variable)}
    return [v for v in function.variables if tracked.isdisjoint(map(id, _components(v)))]


def fingerprint(function: Any) -> Counter:
    """Counts a ConcreteFunction's operations by type and attributes, such as a constant's value.

    Two traces of the same computation have the same fingerprint. Names are ignored, because they
    differ in each trace. A Python number that a trace depends on is a constant in the graph or has
    selected a Python branch, so another number gives another fingerprint.
    """
    return Counter((node.op, _attributes(node)) for node in _nodes(function))


def _nodes(function: Any) -> Iterator[Any]:
    graph = function.graph.as_graph_def()
    yield from graph.node
    for inner in graph.library.function:
        yield from inner.node_def


def _attributes(node: Any) -> tuple[tuple[str, bytes], ...]:
    """Returns (name, serialized value) of a node's attributes but functions, strings and seeds."""
    return tuple(
        (key, value.SerializeToString(deterministic=True))
        for key, value in sorted(node.attr.items())
        if not (key.startswith("_") or key in ("seed", "seed2"))
        and value.WhichOneof("value") not in ("func", "s")
        and not (value.list.func or value.list.s)
    )


def _components(variable: Any) -> list[Any]:
    """Returns the variable and, if it is distributed, its per-replica components."""
    return [variable, *getattr(variable, "values", ())]
