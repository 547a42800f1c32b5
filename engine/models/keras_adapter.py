"""Adapter that trains a Keras 3 model or layer as a network of the engine.

The Keras layers are called with the values of variables of the engine. What the layers would assign
to their variables is collected instead: a call assigns no variable. Dropout, noise and batch norm,
also inside other layers, are replaced during a call (`engine.models.keras_layers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.models.base import ForwardContext, StatisticUpdate
from engine.models.keras_call import CalledModel
from engine.models.keras_forward import Forward
from engine.models.keras_scope import SEED, Scope
from engine.models.stateless_random import StatelessRNG
from engine.models.tracing import batch_spec, check_forward_pass, fits, one_line, zeros


class KerasModel(tf.Module):
    """Network that calls a Keras model or layer with variables of the engine; see `keras_model`.

    `create_variables` sets all attributes except `function`.

    Attributes:
      weights: variables by layer and name, such as `weights["03_conv2d"]["kernel"]`. A layer is
        named after its position and class, because the names that Keras gives depend on the layers
        that were made before in the process.
      outputs: nest of `tf.TensorSpec` of the outputs for one example.
      function: class of the Keras model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(name="keras")
        self.weights: dict[str, dict[str, tf.Variable]] = {}
        self.function = type(model)  # whose code this is: not the engine's
        self._called = CalledModel(model)
        self.outputs: Any = None
        self._inputs: Any = None

    @property
    def keras_layers(self) -> dict[str, Any]:
        """The Keras layers by name, such as "03_conv2d"; empty before `create_variables`."""
        return self._called.layers

    @property
    def keras_model(self) -> Any:
        """The Keras model or layer that is called."""
        return self._called.model

    def recompute(self, names: Sequence[str], compiled_for: str = "") -> None:
        """Makes the calls of Keras layers `recomputed`, with `compiled_for` as there.

        Args:
          names: names of layers, as in `keras_layers`.
          compiled_for: type of the device that XLA compiles for, or "".
        """
        layers = self._called.layers
        self._called.recomputed = {id(layers[name]) for name in names}
        self._called.compiled_for = compiled_for

    def create_variables(self, inputs: Any) -> None:
        """Creates variables with the Keras model's values; checks that the engine can train it.

        Call it in the scope of the strategy. A Keras model that has no variables yet is built by a
        call on zeros. A further call only checks that the model takes `inputs`.

        Args:
          inputs: nest of `tf.TensorSpec` of one example, without a batch axis.

        Raises:
          ValueError: if the Keras model does not take such inputs, or uses a feature that the
            engine does not support, which the message names.
        """
        called = self._called
        if self._inputs is not None and fits(self._inputs, inputs):
            return
        try:
            if self._inputs is not None:  # Keras may take a dict for a list
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
        """Traces a call in training; returns the `id` of each Keras variable that it assigns.

        Sets `outputs`. Raises ValueError if the engine cannot train the model.
        """
        called, found = self._called, set[int]()
        called.check_settings()

        def forward(batch: Any) -> Any:
            noise = StatelessRNG(0, tf.constant(0, tf.int64))
            rows = tf.shape(tf.nest.flatten(batch)[0])[0]
            context = ForwardContext(training=True, mask=tf.ones([rows]), noise=noise)
            outputs, scope, _ = called(batch, context, [])
            for variable in scope.updated.values():
                called.check_statistic(variable)
            found.update(scope.updated)
            return outputs

        own = [w.own.value for w in called.weights]
        seeds = [v.value for v in called.model.variables if v.name == SEED]
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

        Floating outputs are cast to float32. `context` None stands for evaluation in float32. In
        training, the values that the Keras model would assign are appended to `context.updates`;
        the losses of the regularizers of trained weights are appended to `context.penalties`, also
        in evaluation.

        Raises:
          ValueError: before `create_variables`, or if the call uses a feature that the engine does
            not support.
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

    def _propose(self, context: ForwardContext, scope: Scope, passed: Forward, ours: Any) -> None:
        """Appends the values that the call would assign to float32 variables to `context.updates`.

        `ours` maps the `id` of a Keras variable to the engine's variable. A value's weight is the
        number of valid elements for a replaced batch norm, else the number of valid rows.
        """
        rows = tf.cast(passed.rows, tf.float32)
        valid = rows if context.mask is None else tf.reduce_sum(context.mask)
        for key, variable in scope.updated.items():
            value = scope.get_current_value(variable)
            if value.dtype == tf.float32:
                weight, batch = passed.weights.get(key, valid), passed.batches.get(key)
                context.updates.append(StatisticUpdate(ours[key], value, weight, batch))


def keras_model(model: Any, inputs: Any | None = None) -> KerasModel:
    """Returns a network that calls a Keras 3 model or layer with variables of the engine.

    The variables start from the values of the Keras model, pretrained or not; the Keras model
    itself is not trained. Dropout, noise and batch norm layers are replaced during a call, so that
    a step is the same on any number of devices. docs/guide/keras_models.md lists the layers that
    are replaced or refused.

    Args:
      model: functional, Sequential or subclassed model, or a layer.
      inputs: nest of `tf.TensorSpec` of one example, without a batch axis. By default, the inputs
        with which the model was made; if these are not known, the engine creates the variables
        later, by `create_variables`.

    Raises:
      ValueError: if `model` is not a Keras model or layer, or the engine cannot train it.
    """
    if not isinstance(model, keras.Layer):
        raise ValueError(f"tl.keras takes a Keras model or layer, got {type(model).__name__}")
    made = KerasModel(model)
    spec = _own_inputs(model) if inputs is None else inputs
    if spec is not None:
        made.create_variables(spec)
    return made


def _own_inputs(model: Any) -> Any | None:
    """Returns the specs of one example from a model's inputs, without the batch axis, or None.

    The result is None if the model is not built, has no `inputs` (a layer, a subclassed model), or
    has inputs with an unknown side. Raises ValueError if an input has a fixed batch size.
    """
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
