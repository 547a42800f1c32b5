"""Inspection of graphs: the variables and the random numbers that a forward pass uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.auto_control_deps_utils import (
    get_read_only_resource_input_indices_graph,
)

# Rows of the micro-batch that is traced: a prime, which no other dimension is likely to be.
TRACED_ROWS = 101

# Stateful random operations; checkpoints do not contain the state of their generators.
_RANDOM_OPS = frozenset(
    (
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
        *("ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson", "RandomPoissonV2"),
        *("RandomShuffle", "RandomCrop", "Multinomial", "NonDeterministicInts"),
        *("StatefulUniform", "StatefulUniformInt", "StatefulUniformFullInt", "RngSkip"),
        *("StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal"),
        *("StatefulRandomBinomial", "RngReadAndSkip"),
        *("SampleDistortedBoundingBox", "SampleDistortedBoundingBoxV2", "AllCandidateSampler"),
        *("UniformCandidateSampler", "LogUniformCandidateSampler", "FixedUnigramCandidateSampler"),
        *("LearnedUnigramCandidateSampler", "ThreadUnsafeUnigramCandidateSampler"),
    )
)


def batch_spec(spec: Any, rows: int | None = TRACED_ROWS) -> Any:
    """Returns the specs of a batch of `rows` examples for a nest of specs of one example.

    With `rows` None, the batch axis has an unknown size.
    """
    return tf.nest.map_structure(lambda s: tf.TensorSpec([rows, *s.shape], s.dtype), spec)


def zeros(spec: Any, rows: int = 2) -> Any:
    """Returns a batch of `rows` examples of zeros or empty strings, for a nest of specs of one."""

    def fill(s: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([rows, *s.shape], s.dtype)

    return tf.nest.map_structure(fill, spec)


def fits(found: Any, expected: Any) -> bool:
    """Returns whether two nests of specs have the same structure and compatible shapes.

    The dtypes are not compared.
    """
    try:
        tf.nest.assert_same_structure(found, expected, check_types=False)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
    return all(one.shape.is_compatible_with(other.shape) for one, other in pairs)


def check_forward_pass(
    what: str, forward: Callable[[Any], Any], spec: Any, variables: Iterable[tf.Variable]
) -> Any:
    """Traces `forward` on a micro-batch and checks the graph.

    Args:
      what: name of the model for error messages.
      forward: the forward pass, a function of a batch of inputs.
      spec: nest of `tf.TensorSpec` of one example, without a batch axis.
      variables: variables of the model.

    Returns:
      The specs of the outputs for one example, a nest of `tf.TensorSpec`.

    Raises:
      ValueError: if the forward pass creates or assigns a variable, reads a variable that is not in
        `variables`, or draws numbers from a generator with a hidden state.
    """

    def refuse(next_creator: Callable, **arguments: Any) -> tf.Variable:
        name = arguments.get("name") or "Variable"
        raise ValueError(
            f"{what} creates the variable {name} in its call:"
            " create all variables when the model is made"
        )

    def traced(inputs: Any) -> Any:
        with tf.variable_creator_scope(refuse):
            return forward(inputs)

    function = tf.function(traced, autograph=False)
    concrete = function.get_concrete_function(batch_spec(spec))
    if drawn := hidden_random_ops(concrete):
        raise ValueError(
            f"{what} draws random numbers from a generator with a hidden state"
            f" ({', '.join(drawn)}): use tf.random.stateless_* with context.seed(name), or"
            " context.noise"
        )
    graph = concrete.graph
    names = {id(handle): v.name for v in variables for handle in _handles(v)}
    read_only = set(get_read_only_resource_input_indices_graph(graph))
    indices = {id(tensor): i for i, tensor in enumerate(graph.inputs)}
    used = {id(handle): v.name for v in graph.variables for handle in _handles(v)}
    for external, internal in graph.captures:
        if id(external) in names and indices[id(internal)] not in read_only:
            raise ValueError(
                f"{what} assigns its variable {names[id(external)]} in its call, which would differ"
                " between replicas: use tl.models.BatchNorm, or append a StatisticUpdate to"
                " context.updates"
            )
        if id(external) in used and id(external) not in names:
            raise ValueError(
                f"{what} uses the variable {used[id(external)]}, which is none of its own, so no"
                " checkpoint would hold it: make it an attribute of the model"
            )
    return tf.nest.map_structure(
        lambda output: tf.TensorSpec(output.shape[1:], output.dtype), concrete.structured_outputs
    )


def _handles(variable: tf.Variable) -> list[tf.Tensor]:
    """Returns the resource handles of a variable; of a mirrored variable, one per replica."""
    return [component.handle for component in getattr(variable, "values", (variable,))]


def hidden_random_ops(function: Any) -> list[str]:
    """Returns the types of the stateful random operations in a ConcreteFunction, sorted."""
    return sorted({node.op for node in nodes(function)} & _RANDOM_OPS)


def nodes(function: Any) -> Iterator[Any]:
    """Yields the NodeDefs of a ConcreteFunction and of all functions in it, such as loop bodies."""
    graph = function.graph.as_graph_def()
    yield from graph.node
    for inner in graph.library.function:
        yield from inner.node_def


def one_line(error: BaseException) -> str:
    """Returns the first informative line of an error's message, without ANSI color codes.

    Lines that Keras adds ("Exception encountered ...") are skipped. Returns the name of the error's
    type if no line is left.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    said = (line for line in lines if line and not line.startswith("Exception encountered"))
    return next(said, type(error).__name__)
