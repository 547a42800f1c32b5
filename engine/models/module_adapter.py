"""Adapter that trains a `tf.Module`, for example one of Sonnet, as a network of the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.models.base import ForwardContext
from engine.models.stateless_random import StatelessRNG
from engine.models.tracing import check_forward_pass, zeros

_TRAINING = "training", "is_training"
_ANY = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class ModuleModel(tf.Module):
    """Network that calls a `tf.Module`; see `module_model`.

    Attributes:
      module: the `tf.Module` that is called.
      outputs: nest of `tf.TensorSpec` of the outputs for one example; None before
        `create_variables`.
    """

    def __init__(self, module: tf.Module) -> None:
        super().__init__(name="module")
        self.module = module
        self._argument = _second_argument(module)
        self.outputs: Any = None
        self._checked = False

    def create_variables(self, inputs: Any) -> None:
        """Calls the module on zeros, which may create variables; checks that it can be trained.

        Call it in the scope of the strategy, once; further calls do nothing. It sets `outputs`.

        Args:
          inputs: nest of `tf.TensorSpec` of one example, without a batch axis.

        Raises:
          ValueError: if the module has no variables, or if a call in training creates a variable,
            assigns one, reads one that is not the module's, or draws numbers from a generator with
            hidden state.
        """
        if self._checked:
            return
        self(zeros(inputs))
        what = type(self.module).__name__
        if not self.variables:
            raise ValueError(
                f"{what} has no variables: make them attributes of the module, directly or in"
                " lists, dicts and other modules"
            )

        def forward(batch: Any) -> Any:
            noise = StatelessRNG(0, tf.constant(0, tf.int64))
            rows = tf.shape(tf.nest.flatten(batch)[0])[0]
            context = ForwardContext(training=True, mask=tf.ones([rows]), noise=noise)
            return self(batch, context)

        self.outputs = check_forward_pass(what, forward, inputs, self.variables)
        self._checked = True

    def __call__(self, inputs: Any, context: ForwardContext | None = None) -> Any:
        """Maps a batch of inputs, a nest [rows, ...], to the module's outputs.

        Outputs of 16-bit floating dtypes are cast to float32. `context` None stands for evaluation
        in float32.
        """
        context = context or ForwardContext()
        if self._argument is None:
            outputs = self.module(inputs)
        elif self._argument in _TRAINING:
            outputs = self.module(inputs, **{self._argument: context.training})
        else:
            outputs = self.module(inputs, **{self._argument: context})
        return tf.nest.map_structure(_float32, outputs)


def module_model(
    module: tf.Module | Callable[[], tf.Module], inputs: Any | None = None
) -> ModuleModel:
    """Returns a network that calls a `tf.Module`, for example one of Sonnet.

    The module is called as `module(inputs)`, `module(inputs, context=)`, `module(inputs,
    training=)` or `module(inputs, is_training=)`, depending on the parameters of its `__call__`.

    Args:
      module: the module, or a function without arguments or a class that makes it.
      inputs: nest of `tf.TensorSpec` of one example, without a batch axis. If it is given, the
        variables that the module creates in its first call are created now; otherwise by
        `create_variables`, which the engine calls.

    Raises:
      ValueError: if `module` is not and does not make a `tf.Module`, if its `__call__` has other
        parameters, or, with `inputs`, if the engine cannot train it.
    """
    made = module if isinstance(module, tf.Module) else module()
    if not isinstance(made, tf.Module):
        raise ValueError(f"tl.module takes a tf.Module or a function that makes one, got {made!r}")
    model = ModuleModel(made)
    if inputs is not None:
        model.create_variables(inputs)
    return model


def _second_argument(module: Any) -> str | None:
    """Returns the name of the parameter that a module's call has besides the inputs, or None.

    The name is "context", "training" or "is_training". Raises ValueError for a module that cannot
    be called, or whose call takes no inputs, requires other arguments or has several of the three.
    """
    what = type(module).__name__
    if not callable(module):
        raise ValueError(f"{what} cannot be called: give it a method __call__(self, inputs)")
    parameters = list(inspect.signature(_undecorated(type(module).__call__)).parameters.values())
    _, *parameters = parameters  # without `self`
    named = [p for p in parameters if p.kind not in _ANY]
    known = [p.name for p in named[1:] if p.name in ("context", *_TRAINING)]
    unknown = [p.name for p in named[1:] if p.default is p.empty and p.name not in known]
    if not parameters or unknown or len(known) > 1:
        raise ValueError(
            f"{what} is called with ({', '.join(p.name for p in parameters)}): its arguments have"
            " to be (inputs), (inputs, context), (inputs, training) or (inputs, is_training)"
        )
    return known[0] if known else None


def _undecorated(function: Callable) -> Callable:
    """Returns the user's `__call__`, which Sonnet wraps in a function with variadic parameters.

    A function that is not wrapped like this is returned as it is.
    """
    _, *others = inspect.signature(function).parameters.values()
    if all(parameter.kind in _ANY for parameter in others):
        for cell in getattr(function, "__closure__", None) or ():
            inner = cell.cell_contents
            if inspect.isfunction(inner) and inner.__name__ == "__call__":
                return _undecorated(inner)
    return function


def _float32(output: Any) -> Any:
    dtype = getattr(output, "dtype", None)
    return tf.cast(output, tf.float32) if dtype in (tf.bfloat16, tf.float16) else output
