"""Evaluation over views: the mean of the outputs for changed inputs, such as mirror images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipelines import WeightedView


def mean_over_views(model: tf.Module, views: Sequence[WeightedView]) -> tf.Module:
    """Returns a model whose outputs are the mean over views, or `model` itself without views."""
    return MeanOverViews(model, views) if views else model


class MeanOverViews(tf.Module):
    """A model whose outputs are the weighted mean of another model's outputs over views.

    It is called as the other model is, and has its other attributes. It calls the model once for
    each view, one call after the other, so that the activations of two calls are not in memory at
    the same time. An output of a row depends only on that row, as those of the model do.

    Args:
      model: model to call.
      views: views of its inputs, at least one.
    """

    def __init__(self, model: tf.Module, views: Sequence[WeightedView]) -> None:
        super().__init__(name="mean_over_views")
        self._model = model
        self._selected = lambda: views  # a function, which a SavedModel does not track

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, inputs: Any, context: Any = None) -> Any:
        """Returns the mean over views of the model's outputs for inputs, a nest [rows, ...].

        The outputs are a nest of tensors [rows, ...] of the structure that the model returns,
        float32, or float64 where the model's are. Penalties of the weights are added to
        `context.penalties` once.

        Raises:
          ValueError: if an output of the model is not a floating tensor.
        """
        total: Any = None
        for weight, view in self._selected():
            with tf.control_dependencies([] if total is None else tf.nest.flatten(total)):
                seen = tf.nest.map_structure(tf.identity, inputs)
            outputs = self._model(view(seen), context)
            part = tf.nest.map_structure(lambda each, weight=weight: _times(weight, each), outputs)
            total = part if total is None else tf.nest.map_structure(tf.add, total, part)
            if context is not None:  # the penalties do not depend on the inputs: once is enough
                context = dataclasses.replace(context, penalties=[], updates=[])
        return total


def _times(weight: float, output: Any) -> tf.Tensor:
    """Returns a weighted output, float32 or float64; ValueError if it is not a floating tensor."""
    output = tf.convert_to_tensor(output)
    if not output.dtype.is_floating:
        raise ValueError(
            f"--evaluation_views: the model returns outputs of {output.dtype.name}, which have no "
            "mean over views: return floating ones, or leave the option out"
        )
    return weight * tf.cast(output, tf.float64 if output.dtype == tf.float64 else tf.float32)
