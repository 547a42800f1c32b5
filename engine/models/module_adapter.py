"""Models from any `tf.Module`, Sonnet's too."""

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
    """A model that calls a `tf.Module`; see `module_model`.

    Attributes:
      module: the module.
      randomness: that of the module, "none" if it says nothing.
      cross_example: that of the module, False if it says nothing.
      outputs: nest of `tf.TensorSpec` of the outputs for one example.
    """

    def __init__(self, module: tf.Module) -> None:
        super().__init__(name="module")
        self.module = module
        self.randomness: str = getattr(module, "randomness", "none")
        self.cross_example: bool = getattr(module, "cross_example", False)
        self._argument = _second_argument(module)
        self.outputs: Any = None
        self._checked = False

    def create_variables(self, inputs: Any) -> None:
        """Creates the variables that the module creates in its first call; checks its calls.

        Call it in the scope of the strategy, once; further calls do nothing.

        Args:
          inputs: nest of `tf.TensorSpec` of one example, without a batch axis.

        Raises:
          ValueError: if a call in training creates a variable, reads one that is not the module's,
            assigns one, or draws numbers from a generator with a hidden state; if there are none.
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

        Outputs of 16-bit dtypes are cast to float32. `context` None stands for evaluation.
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
    """Returns a model that calls a `tf.Module`, for example one of Sonnet.

    The module is called as `module(inputs)`, `module(inputs, context)`, `module(inputs, training=)`
    or `module(inputs, is_training=)`, as its signature says.

    Args:
      module: the module, or a function without arguments or a class that makes it.
      inputs: nest of `tf.TensorSpec` of one example. If it is given, variables that the module
        creates in its first call are created now; otherwise by `create_variables`, which the
        engine calls.

    Raises:
      ValueError: if this is no module, or if its signature is another one.
    """
    made = module if isinstance(module, tf.Module) else module()
    if not isinstance(made, tf.Module):
        raise ValueError(f"tl.module takes a tf.Module or a function that makes one, got {made!r}")
    model = ModuleModel(made)
    if inputs is not None:
        model.create_variables(inputs)
    return model


def _second_argument(module: Any) -> str | None:
    """Returns the name of what a module is called with besides its inputs; None: nothing."""
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
    """Returns the function that says its arguments: Sonnet wraps a user's in (*args, **kwargs)."""
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
