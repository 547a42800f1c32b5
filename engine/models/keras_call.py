"""Calls a Keras model with given values of its variables, and with some of its layers replaced."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.models.base import ForwardContext
from engine.models.keras_forward import Forward, current, entered
from engine.models.keras_layers import replacement
from engine.models.keras_recompute import recomputed_call
from engine.models.keras_scope import SEED, Scope


class Weight(NamedTuple):
    """A variable of a Keras model, and the name of the engine's variable that takes its place."""

    layer: str  # of the owner, such as "03_conv2d"
    name: str  # within the layer, such as "kernel"
    own: Any  # keras.Variable


class CalledModel:
    """Keras model that is called with given values of its variables and some layers replaced.

    It is not a `tf.Module`, so that checkpoints do not contain the variables of the Keras model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.what = f"the Keras model {type(model).__name__}"
        self.weights: list[Weight] = []
        self.trained: set[int] = set()  # `id` of the trainable ones of Keras's variables
        self.recomputed: set[int] = set()  # `id` of the layers whose calls are `recomputed`
        self.compiled_for = ""  # as in `recomputed`
        self._layers: dict[str, Any] = {}
        self._lock, self._entered = threading.Lock(), 0

    @property
    def layers(self) -> dict[str, Any]:
        """The layers by name, and the model itself; empty before `find_layers`."""
        return dict(self._layers)

    def find_layers(self) -> None:
        """Finds the layers and their variables; sets `weights` and `trained`.

        The layers are named by position and class, such as "03_conv2d", the model itself by class.
        """
        layers = list(_layers(self.model, set()))
        self._indices = {id(layer): index for index, layer in enumerate(layers)}
        # The model itself and its inputs have no number, so that a Sequential model and the same
        # functional one have the same names.
        plain = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
        first = int(isinstance(self.model, keras.Model))
        width = max(2, len(str(len(plain))))
        self._layers = {
            f"{index:0{width}}_{_snake_case(type(layer).__name__)}": layer
            for index, layer in enumerate(plain[first:])
        }
        if first:
            self._layers[_snake_case(type(self.model).__name__)] = self.model
        seen: set[int] = set()
        self.weights, self._known = [], {}
        for label, layer in self._layers.items():
            names: dict[str, int] = {}
            for own in (*layer._trainable_variables, *layer._non_trainable_variables):
                if id(own) in seen or own.name == SEED:
                    continue
                seen.add(id(own))
                count = names[own.name] = names.get(own.name, 0) + 1
                name = own.name if count == 1 else f"{own.name}_{count}"
                self.weights.append(Weight(label, name, own))
                self._known[id(own)] = f"{label}/{name}"
            for number, generator in enumerate(layer._seed_generators):
                self._known[id(generator.state)] = f"{label}/{number}"
        self.trained = {id(own) for own in self.model.trainable_variables}
        # The policy of all layers that were given none is one object of the process. If no layer
        # has it, the model was loaded, and what was given to its layers is not known.
        common = keras.config.dtype_policy()
        loaded = not any(layer.dtype_policy is common for layer in plain[first:])
        self._follows = [
            layer
            for layer in layers
            if layer.dtype_policy.name == "float32" and (loaded or layer.dtype_policy is common)
        ]

    def check_settings(self) -> None:
        """Checks that the engine can train with the settings of the Keras layers and variables.

        Raises:
          ValueError: if a layer is quantized or rematerialized, or has an activity regularizer or a
            floating dtype policy other than float32; if a variable is overwritten with its
            gradient; if a trained variable has a constraint or is not float32. The message names
            the layer or the variable.
        """
        trained = self.trained
        for label, layer in self._layers.items():
            policy = layer.dtype_policy
            if policy.quantization_mode is not None:
                raise ValueError(
                    f"layer {label} is quantized ({policy.name}): train it unquantized"
                )
            floating = tf.as_dtype(policy.compute_dtype or "float32").is_floating
            if floating and policy.name != "float32":
                raise ValueError(
                    f"layer {label} has the dtype policy {policy.name}: leave it out, and choose"
                    " the precision of all layers by --precision"
                )
            if getattr(layer, "activity_regularizer", None) is not None:
                raise ValueError(
                    f"layer {label} has an activity regularizer, in which padding would count: add"
                    " the loss of each example in the task"
                )
            if getattr(layer, "_remat_mode", None):
                raise ValueError(f"layer {label} is rematerialized: make it without RematScope")
        for label, name, own in self.weights:
            if own.constraint is not None and id(own) in trained:
                raise ValueError(
                    f"{label}/{name} has the constraint {type(own.constraint).__name__}, which no"
                    " optimizer here applies: leave it out"
                )
            if id(own) in trained and own.dtype != "float32":
                raise ValueError(f"{label}/{name} is {own.dtype}: weights have to be float32")
            if getattr(own, "overwrite_with_gradient", False):
                raise ValueError(f"{label}/{name} is overwritten with its gradient: leave it out")

    def check_statistic(self, variable: Any) -> None:
        """Raises ValueError if a Keras variable that a call assigns is trainable or not float32."""
        name = self._known[id(variable)]
        if variable.trainable:
            raise ValueError(
                f"{name} is trained and assigned in a call: make it non-trainable, or a layer that"
                " assigns no weight"
            )
        if variable.dtype != "float32":
            raise ValueError(
                f"{name}, {variable.dtype}, is assigned in a call, and only float32 statistics can"
                " be averaged over replicas: make it float32, or leave it out"
            )

    def __call__(
        self, inputs: Any, context: ForwardContext, values: list[tuple[Any, tf.Tensor]]
    ) -> tuple[Any, Scope, Forward]:
        """Calls the Keras model with `values` in place of those of its variables.

        Args:
          inputs: batch of inputs, a nest [rows, ...].
          context: context of the forward pass.
          values: (Keras variable, value) pairs.

        Returns:
          The outputs, in float32 if floating; the scope, which holds the values that the model
          would assign; and the forward pass, which holds the weights of these values.

        Raises:
          ValueError: if the call uses a feature that the engine cannot train.
        """
        first = tf.nest.flatten(inputs)[0]
        rows = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
        scope = Scope(values, self._known, context.seed)
        forward = Forward(context, self._indices, rows)
        forward.scope = scope
        with self._prepared(context.dtype), entered(forward), scope:
            outputs = self.model(inputs, training=context.training)
        self._refuse(scope, forward)
        return tf.nest.map_structure(_float32, outputs), scope, forward

    def _refuse(self, scope: Scope, forward: Forward) -> None:
        """Raises ValueError if the call used features that prevent training, such as `add_loss`.

        The reasons are appended to `forward.refusals`; the message is the first of them.
        """
        graph = tf.compat.v1.get_default_graph()
        for layer in self._layers.values():
            if scope.losses and any(id(loss) in layer._loss_ids for loss in scope.losses):
                forward.refusals.append(
                    f"{layer.name} ({type(layer).__name__}) calls add_loss, in which padding would"
                    " count: add the loss of each example in the task"
                )
            layer._loss_ids.clear()
        for variable in scope.foreign.values():
            forward.refusals.append(
                f"its call uses the variable {variable.path}, which is not a weight of the model:"
                " make it one by add_weight, and measure by the task's metrics"
            )
        for key, variable in scope.updated.items():
            value = scope.state_mapping[key]
            if not tf.executing_eagerly() and value.graph is not graph:
                forward.refusals.append(
                    f"{variable.path} is assigned in a loop, condition or tf.function of its own:"
                    " assign it outside of that"
                )
        if forward.refusals:
            raise ValueError(f"{self.what}: {forward.refusals[0]}")

    @contextlib.contextmanager
    def _prepared(self, dtype: tf.DType) -> Iterator[None]:
        """Replaces `call` of some layers, and sets the layers' compute dtype, in a `with` block.

        The threads of a strategy's replicas enter the block at the same time, all with the same
        dtype: the first thread that enters replaces, and the last thread that leaves restores.
        """
        with self._lock:
            self._entered += 1
            if self._entered == 1:
                self._replace(dtype)
        try:
            yield
        finally:
            with self._lock:
                self._entered -= 1
                if not self._entered:
                    self._put_back()

    def _replace(self, dtype: tf.DType) -> None:
        self._replaced, self._policies = [], []
        for layer in self._layers.values():
            stand_in = replacement(layer)
            if "call" in vars(layer):
                continue
            if stand_in:
                object.__setattr__(layer, "call", _bound(stand_in, layer))
            if id(layer) in self.recomputed:
                call = recomputed_call(layer, self._again, self.compiled_for)
                object.__setattr__(layer, "call", call)
            if "call" in vars(layer):
                self._replaced.append(layer)
        if dtype != tf.float32:
            self._policies = [(layer, layer.dtype_policy) for layer in self._follows]
            for layer in self._follows:
                layer.dtype_policy = f"mixed_{dtype.name}"

    @contextlib.contextmanager
    def _again(self, forward: Forward, state: dict[int, Any]) -> Iterator[None]:
        """Prepares a second call of a layer in a `with` block, without the effects of a call.

        Args:
          forward: forward pass of the second call.
          state: values of Keras variables before the first call, by `id` of the variable.
        """
        context = forward.context
        forward.scope = Scope([], self._known, context.seed)
        forward.scope.state_mapping.update(state)
        with self._prepared(context.dtype), entered(forward), forward.scope:
            yield

    def _put_back(self) -> None:
        for layer in self._replaced:
            object.__delattr__(layer, "call")
        for layer, policy in self._policies:
            layer.dtype_policy = policy


def _bound(stand_in: Any, layer: Any) -> Any:
    """Returns a method that calls `stand_in` in a forward pass of the engine, else `layer.call`."""
    own = layer.call

    def call(*arguments: Any, **named: Any) -> Any:
        forward = current()
        if forward is None:
            return own(*arguments, **named)
        return stand_in(forward, layer, own, *arguments, **named)

    return call


def _layers(layer: Any, seen: set[int]) -> Iterator[Any]:
    """Yields a layer and all layers inside it, each once, depth-first in Keras's order.

    `seen` has the `id` of each layer to leave out; the yielded layers are added to `seen`.
    """
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for inner in layer._layers:
        yield from _layers(inner, seen)


def _snake_case(name: str) -> str:
    name = re.sub(r"\W|_", "", name)
    return re.sub(r"(.)([A-Z][a-z]+)|([a-z])([A-Z])", r"\1\3_\2\4", name).lower()


def _float32(output: Any) -> Any:
    return tf.cast(output, tf.float32) if output.dtype.is_floating else output
