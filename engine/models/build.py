"""Builds registered networks by name, and checks their outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.config.registry import call
from engine.models.base import ForwardContext, Layer
from engine.models.registry import NETWORKS
from engine.models.seeding import make_seeded
from engine.models.sequential import Sequential
from engine.models.tracing import batch_spec, fits
from engine.runtime.user_code import place, user_code_location


def build_model(
    name: str,
    *,
    inputs: Any,
    outputs: Any,
    seed: int,
    hidden: Sequence[int] = (512, 512),
    arguments: Mapping[str, Any] | None = None,
) -> tf.Module:
    """Builds a registered network, whose initial weights are a pure function of `seed`.

    Args:
      name: name of the network.
      inputs: nest of specs (`tf.TensorSpec`) of an example's inputs, without the batch axis.
      outputs: nest of specs (`tf.TensorSpec`) of the outputs for one example that the task needs;
        the dtypes are not checked.
      seed: seed of the initial weights.
      hidden: number of units of each hidden layer, for a factory that has this parameter.
      arguments: further arguments of the network's factory, by name.

    Returns:
      A `Sequential` if the factory returns a list of layers, else the `tf.Module` that the factory
      returns. The attribute `made_by` is set to the factory.

    Raises:
      ValueError: for an unknown name, for a parameter of the factory that has no value, for a
        factory that returns neither layers nor a `tf.Module`, for inputs that the network does not
        support, for a Keras model or `tf.Module` in an adapter that the engine cannot train, and
        for a network that has other outputs or no trainable variables, or that creates variables
        when it is called.
    """
    factory = NETWORKS[name]
    try:
        model = _built(name, factory, inputs, outputs, seed, hidden, arguments or {})
    except ValueError as error:  # of the engine, about what a user wrote
        where = place(factory)
        if not where or user_code_location(error):
            raise
        raise ValueError(f"{where}{error}") from error
    model.made_by = factory
    return model


def _built(
    name: str,
    factory: Callable[..., Any],
    inputs: Any,
    outputs: Any,
    seed: int,
    hidden: Sequence[int],
    arguments: Mapping[str, Any],
) -> tf.Module:
    values = {"inputs": inputs, "outputs": outputs, "hidden": hidden, **arguments}

    def make() -> Any:
        made = call(f"the network {name}", factory, values)
        if hasattr(made, "create_variables"):  # an adapter of tl.keras or tl.module
            made.create_variables(inputs)
        return made

    made = make_seeded(seed, make)
    if isinstance(made, Sequence):
        if not isinstance(inputs, tf.TensorSpec):
            raise ValueError(
                f"{name} is a list of layers, which takes one tensor, and the inputs are "
                f"{described(inputs)}: return a tf.Module"
            )
        model = Sequential(name, _layers(name, made), inputs.shape.as_list(), seed)
        found: Any = tf.TensorSpec(model.output_shapes[-1])
    elif isinstance(made, tf.Module):
        model = made
        found = getattr(made, "outputs", None) or _abstract_outputs(name, made, inputs)
    else:
        raise ValueError(
            f"{name} returned a {type(made).__name__}: return a list of layers or a tf.Module; "
            "a Keras model by tl.keras(model)"
        )
    if not model.trainable_variables:
        raise ValueError(f"{name} has no trainable variables when it is built")
    if not fits(found, outputs):
        hint = ""
        if isinstance(outputs, tf.TensorSpec) and outputs.shape.rank == 1:
            hint = f": end it with Flatten() and Dense({outputs.shape[0]})"
        raise ValueError(
            f"{name} has outputs {described(found)}, and the task needs {described(outputs)}{hint}"
        )
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(outputs), strict=True)
    if any(b.shape.is_fully_defined() and not a.shape.is_fully_defined() for a, b in pairs):
        raise ValueError(
            f"{name}: the graph does not know the shape of its outputs, {described(found)}: return "
            "tf.ensure_shape(outputs, [None, ...]) with all sizes but the rows"
        )
    return model


def _layers(name: str, made: Sequence[Any]) -> Sequence[Layer]:
    if not made:
        raise ValueError(f"{name} has no layers")
    for layer in made:
        if not isinstance(layer, Layer):
            raise ValueError(f"{name} lists a {type(layer).__name__}, which is not a layer")
    return made


def _abstract_outputs(name: str, model: tf.Module, inputs: Any) -> Any:
    """Traces a call in evaluation; returns the specs of the outputs for one example.

    Raises ValueError if the call creates variables, or does not take (inputs, context).
    """
    try:
        inspect.signature(model).bind(inputs, ForwardContext())
    except TypeError as error:
        raise ValueError(
            f"{name} returned a {type(model).__name__} that cannot be called with (inputs, "
            "context): return tl.module(...) of it, or give it __call__(self, inputs, context)"
        ) from error
    before = len(model.variables)
    called = tf.function(lambda rows: model(rows, ForwardContext()), autograph=False)
    outputs = called.get_concrete_function(batch_spec(inputs, 2)).structured_outputs
    if len(model.variables) > before:
        raise ValueError(f"{name} creates variables when it is called: create them before")
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape[1:], tensor.dtype), outputs
    )


def described(specs: Any) -> str:
    """Formats a nest of `tf.TensorSpec` for a message, for example "float32 [28, 28, 1]"."""
    if isinstance(specs, tf.TensorSpec):
        sizes = "[...]" if specs.shape.rank is None else specs.shape.as_list()
        return f"{specs.dtype.name} {sizes}"
    if isinstance(specs, Mapping):
        return "{" + ", ".join(f"{key}: {described(each)}" for key, each in specs.items()) + "}"
    return "(" + ", ".join(map(described, specs)) + ")"
