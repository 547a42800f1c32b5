"""Checks of the inputs and outputs that a built-in network gets."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from engine.models.base import Shape


def one_tensor(name: str, what: str, spec: Any) -> Shape:
    """Returns the shape of a spec of one tensor, without the batch axis.

    Args:
      name: name of the network, for the error.
      what: "inputs" or "outputs".
      spec: nest of specs (`tf.TensorSpec`).

    Raises:
      ValueError: if `spec` is not the spec of one tensor.
    """
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            f"--model={name} takes one tensor and returns one, and the {what} are several: give"
            " another network, or one of your own (tl.model)"
        )
    return tuple(spec.shape.as_list())


def class_count(name: str, outputs: Any) -> int:
    """Returns the number of outputs of an example.

    Raises:
      ValueError: if the outputs of an example are not a vector.
    """
    shape = one_tensor(name, "outputs", outputs)
    if len(shape) != 1:
        raise ValueError(
            f"--model={name} has a vector of outputs for each example, and the task needs shape"
            f" {shape}: give another network"
        )
    return shape[0]
