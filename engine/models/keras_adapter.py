"""Models from any Keras 3 model, or a single layer.

The model's layers are called as they are, with variables of the engine in place of their own, so
that nothing that Keras does changes a variable. Dropout, noise and batch norm are replaced for the
time of a call (`engine.models.keras_layers`), also inside other layers.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.models.base import ForwardContext, StatisticUpdate
from engine.models.keras_layers import Forward, current, entered, replacement
from engine.models.stateless_random import StatelessRNG
from engine.models.tracing import batch_spec, check_forward_pass, one_line, zeros

_SEED = "seed_generator_state"  # name of the variable of each of Keras's seed generators


class _Weight(NamedTuple):
    """A variable of a Keras model and the one that stands in for it."""

    layer: str  # of the owner, such as "03_conv2d"
    name: str  # within the layer, such as "kernel"
    own: Any  # keras.Variable


class _Scope(keras.StatelessScope):
    """Gives Keras's variables other values in a `with` block, and keeps what it would assign."""

    def __init__(self, values: list[tuple[Any, tf.Tensor]], known: dict[int, str], seed: Any):
        super().__init__(values, collect_losses=True, initialize_variables=False)
        self.updated: dict[int, Any] = {}  # assigned variables by `id`
        self.seeded: list[str] = []  # names of the seed generators in use
        self.foreign: dict[int, Any] = {}  # variables in use that are none of the model's
        self._known, self._seed = known, seed

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and variable.name == _SEED:
            name = self._known.get(id(variable), "global")
            self.seeded.append(name)
            value = tf.cast(self._seed(f"keras/{name}"), variable.dtype)
            self.state_mapping[id(variable)] = value
        elif value is None and id(variable) not in self._known:
            self.foreign[id(variable)] = variable
        return value

    def add_update(self, update: Any) -> None:
        super().add_update(update)
        variable = update[0]
        if variable.name != _SEED:
            self.updated[id(variable)] = variable
            if id(variable) not in self._known:
                self.foreign[id(variable)] = variable


class KerasModel(tf.Module):
    """A model that calls a Keras model; see `keras_model`.

    Attributes:
      weights: variables by layer and name, such as `weights["03_conv2d"]["kernel"]`. The names are
        those of the places and classes of the layers, not those that Keras numbers in a process.
      randomness: "none", "per_example", or "per_microbatch" if a seed generator of Keras is used.
      cross_example: whether an example's output depends on others.
      outputs: nest of `tf.TensorSpec` of the outputs for one example.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(name="keras")
        self.weights: dict[str, dict[str, tf.Variable]] = {}
        self.randomness, self.cross_example = "none", False
        self.function = type(model)  # whose code this is: not the engine's
        self._called = _Untracked(model)
        self.outputs: Any = None
        self._inputs: Any = None

    def create_variables(self, inputs: Any) -> None:
        """Creates the variables, with the values of the Keras model; checks its calls.

        Call it in the scope of the strategy. A further call only checks `inputs`.

        Args:
          inputs: nest of `tf.TensorSpec` of one example, without a batch axis.

        Raises:
          ValueError: if the Keras model does not take such inputs, or does what the engine cannot
            do on several devices; the error names the layer.
        """
        called = self._called
        if self._inputs is not None and _same_inputs(self._inputs, inputs):
            return
        try:
            if self._inputs is not None:  # Keras takes a dict of inputs for a list, and refuses
                tf.function(self, autograph=False).get_concrete_function(batch_spec(inputs))
                return
            if not called.model.built or not called.model.variables:
                called.model(zeros(inputs))
            called.find_layers()
            statistics = self._checked(inputs)
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            shown = one_line(error)
            prefix = "" if shown.startswith(called.what) else f"{called.what}: "
            raise ValueError(f"{prefix}{shown}") from error
        self._create(statistics)
        self._inputs = inputs

    def _checked(self, inputs: Any) -> set[int]:
        """Traces a training step's call; returns the `id` of the variables that it updates."""
        called, found = self._called, set[int]()
        called.check_settings()

        def forward(batch: Any) -> Any:
            noise = _Watched(0, tf.constant(0, tf.int64))
            rows = tf.shape(tf.nest.flatten(batch)[0])[0]
            context = ForwardContext(training=True, mask=tf.ones([rows]), noise=noise)
            outputs, scope, passed = called(batch, context, [])
            for variable in scope.updated.values():
                called.check_statistic(variable)
            found.update(scope.updated)
            per_example = "per_example" if noise.used else "none"
            self.randomness = "per_microbatch" if scope.seeded else per_example
            self.cross_example = passed.normalizes or bool(found)
            return outputs

        own = [w.own.value for w in called.weights]
        seeds = [v.value for v in called.model.variables if v.name == _SEED]
        self.outputs = check_forward_pass(called.what, forward, inputs, [*own, *seeds])
        return found

    def _create(self, statistics: set[int]) -> None:
        weights: dict[str, dict[str, tf.Variable]] = {}
        for layer, name, own in self._called.weights:
            updated = id(own) in statistics
            weights.setdefault(layer, {})[name] = tf.Variable(
                tf.convert_to_tensor(own.value),
                trainable=id(own) in self._called.trained,
                name=f"{layer}/{name}",
                # The training step assigns statistics; NONE says that a variable is frozen.
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
                if updated
                else tf.VariableAggregation.NONE,
            )
        self.weights = weights

    def __call__(self, inputs: Any, context: ForwardContext | None = None) -> Any:
        """Maps a batch of inputs, a nest [rows, ...], to the Keras model's outputs.

        Outputs of floating dtypes are cast to float32. `context` None stands for evaluation.
        """
        called = self._called
        if self._inputs is None:
            raise ValueError(
                f"{called.what} is not built: pass the specs of its inputs, tl.keras(model, inputs)"
            )
        context = context or ForwardContext()
        stand_ins = [(w.own, self.weights[w.layer][w.name]) for w in called.weights]
        values = [(own, tf.convert_to_tensor(variable)) for own, variable in stand_ins]
        outputs, scope, passed = called(inputs, context, values)
        if context.training:
            self._propose(context, scope, passed, {id(own): ours for own, ours in stand_ins})
        for own, value in values:
            if own.regularizer is not None and id(own) in called.trained:
                penalty = tf.reduce_sum(own.regularizer(value))
                context.penalties.append(tf.cast(penalty, tf.float32))
        return outputs

    def _propose(self, context: ForwardContext, scope: _Scope, passed: Forward, ours: Any) -> None:
        """Appends what the model would assign to statistics, averaged over valid rows."""
        rows = tf.cast(passed.rows, tf.float32)
        valid = rows if context.mask is None else tf.reduce_sum(context.mask)
        for key, variable in scope.updated.items():
            value = scope.get_current_value(variable)
            if value.dtype == tf.float32:
                weight = passed.weights.get(key, valid)
                context.updates.append(StatisticUpdate(ours[key], value, weight))


class _Watched(StatelessRNG):
    """A generator that knows whether layers drew from it for each row."""

    used = False

    def uniform(self, *arguments: Any) -> tf.Tensor:
        self.used = True
        return super().uniform(*arguments)

    def dropout(self, *arguments: Any) -> tf.Tensor:
        self.used = True
        return super().dropout(*arguments)


class _Untracked:
    """A Keras model and its layers, hidden from `tf.Module`, which would save its variables too."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.what = f"the Keras model {type(model).__name__}"
        self.weights: list[_Weight] = []
        self.trained: set[int] = set()  # `id` of the trainable ones of Keras's variables
        self._layers: dict[str, Any] = {}
        self._lock, self._entered = threading.Lock(), 0

    def find_layers(self) -> None:
        """Names the layers by place and class, and finds their variables."""
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
                if id(own) in seen or own.name == _SEED:
                    continue
                seen.add(id(own))
                count = names[own.name] = names.get(own.name, 0) + 1
                name = own.name if count == 1 else f"{own.name}_{count}"
                self.weights.append(_Weight(label, name, own))
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
        """Raises ValueError, with the layer's name, for what no training step could honour."""
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
        """Raises ValueError if the engine cannot average what a call assigns to a variable."""
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
    ) -> tuple[Any, _Scope, Forward]:
        """Calls the Keras model with `values` in place of those of its variables.

        Returns:
          The outputs, of floating dtypes in float32; the scope that has what the model would
          assign; the forward pass.
        """
        first = tf.nest.flatten(inputs)[0]
        rows = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
        scope = _Scope(values, self._known, context.seed)
        forward = Forward(context, self._indices, rows)
        with self._prepared(context.dtype), entered(forward), scope:
            outputs = self.model(inputs, training=context.training)
        self._refuse(scope, forward)
        return tf.nest.map_structure(_float32, outputs), scope, forward

    def _refuse(self, scope: _Scope, forward: Forward) -> None:
        """Raises ValueError for what the model did in a call that the engine cannot do."""
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
                f"its call uses the variable {variable.path}, which is no weight of the model:"
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
        """Replaces calls of layers and sets their compute dtype in a `with` block.

        The threads of a strategy's replicas are in it at the same time, all with the same dtype.
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
            if stand_in and "call" not in vars(layer):
                object.__setattr__(layer, "call", _bound(stand_in, layer))
                self._replaced.append(layer)
        if dtype != tf.float32:
            self._policies = [(layer, layer.dtype_policy) for layer in self._follows]
            for layer in self._follows:
                layer.dtype_policy = f"mixed_{dtype.name}"

    def _put_back(self) -> None:
        for layer in self._replaced:
            object.__delattr__(layer, "call")
        for layer, policy in self._policies:
            layer.dtype_policy = policy


def keras_model(model: Any, inputs: Any | None = None) -> KerasModel:
    """Returns a model that calls a Keras 3 model or layer, with variables of its own.

    They start from the values of the Keras model, pretrained ones too, which stays as it is. Its
    dropout, noise and batch norm are replaced in a call, so that a step is the same on any number
    of devices. docs/guide/keras_models.md says what is replaced and what is refused.

    Args:
      model: functional, Sequential or subclassed model, or a layer.
      inputs: nest of `tf.TensorSpec` of one example. Without it, a model that does not know its
        inputs is built by `create_variables`, which the engine calls.

    Raises:
      ValueError: if this is no Keras model, or one that the engine cannot train as it is.
    """
    if not isinstance(model, keras.Layer):
        raise ValueError(f"tl.keras takes a Keras model or layer, got {type(model).__name__}")
    made = KerasModel(model)
    spec = _own_inputs(model) if inputs is None else inputs
    if spec is not None:
        made.create_variables(spec)
    return made


def _own_inputs(model: Any) -> Any | None:
    """Returns the specs of one example that a model was made for; None if it does not know all."""
    if not model.built or not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return None
    for tensor in model.inputs:
        if tensor.shape[0] is not None:
            raise ValueError(
                f"the Keras model {type(model).__name__} has the batch size {tensor.shape[0]}:"
                " make its Input without one"
            )
        if None in tensor.shape[1:]:
            return None
    nest = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), nest)


def _same_inputs(ours: Any, given: Any) -> bool:
    """Returns whether two nests of specs have the same structure and shapes."""
    try:
        tf.nest.assert_same_structure(ours, given, check_types=False)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(ours), tf.nest.flatten(given), strict=True)
    return all(one.shape.is_compatible_with(other.shape) for one, other in pairs)


def _bound(stand_in: Any, layer: Any) -> Any:
    """Returns a call of `layer` that is `stand_in` in a forward pass and its own otherwise."""
    own = layer.call

    def call(*arguments: Any, **named: Any) -> Any:
        forward = current()
        if forward is None:
            return own(*arguments, **named)
        return stand_in(forward, layer, own, *arguments, **named)

    return call


def _layers(layer: Any, seen: set[int]) -> Iterator[Any]:
    """Yields a layer and all in it, each once, in the order in which they were made."""
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
