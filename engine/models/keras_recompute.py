"""Recomputes the calls of Keras layers in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from engine.models.base import ForwardContext
from engine.models.keras_forward import Forward, current
from engine.models.recompute import recomputed

Again = Callable[[Forward, dict[int, Any]], AbstractContextManager]


class _Caller(keras.Layer):
    """Layer that calls a function, in which other layers find whether the model is in training."""

    def __init__(self) -> None:
        super().__init__(name="second_call", autocast=False)

    def call(self, inputs: Any, function: Any = None, training: Any = None) -> Any:
        return function()


def recomputed_call(layer: Any, again: Again, compiled_for: str) -> Callable[..., Any]:
    """Returns a function to call in place of `layer.call`, whose gradient calls the layer again.

    Outside of a forward pass of the engine, it is `layer.call`. A Keras mask that the outputs have
    is kept.

    Args:
      layer: Keras layer.
      again: makes a context manager in which the layer may be called again, from the forward pass
        of the second call and the values of the Keras variables by `id`.
      compiled_for: as in `recomputed`.
    """
    own = layer.call

    def call(*arguments: Any, **named: Any) -> Any:
        forward = current()
        if forward is None:
            return own(*arguments, **named)
        calls, state = forward.calls, dict(forward.scope.state_mapping)
        masks = [_mask(leaf) for leaf in tf.nest.flatten((arguments, named))]

        found: list[Any] = []

        def first(context: ForwardContext, arguments: Any, named: Any) -> Any:
            outputs = own(*arguments, **named)
            found[:] = [_mask(leaf) for leaf in tf.nest.flatten(outputs)]
            return outputs

        def second(context: ForwardContext, arguments: Any, named: Any) -> Any:
            for leaf, mask in zip(tf.nest.flatten((arguments, named)), masks, strict=True):
                if mask is not None:
                    leaf._keras_mask = mask

            def outputs() -> Any:
                return layer(*arguments, **named)

            with again(forward.again(context, calls), state):
                return _Caller()(tf.zeros([]), function=outputs, training=context.training)

        outputs = recomputed(
            first, forward.context, arguments, named, again=second, compiled_for=compiled_for
        )
        for leaf, mask in zip(tf.nest.flatten(outputs), found, strict=True):
            if mask is not None:
                leaf._keras_mask = mask
        return outputs

    return call


def _mask(leaf: Any) -> Any:
    """Returns the Keras mask of a tensor, or None."""
    return getattr(leaf, "_keras_mask", None)
