"""The `tf.Module` that is exported: a network with preprocessing and the task's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

import pipelines
from engine.models.base import ForwardContext
from engine.tasks.task import Task


class ServingModule(tf.Module):
    """A network that maps decoded inputs, such as uint8 images, to the predictions of a task.

    `serve` is the signature of the SavedModel: it takes a batch of each input tensor, named as in
    `input_names`, checks the shapes in the graph and returns the predictions by name. If the data
    set has class names and "classes" is a prediction, "labels" are the names of the predicted
    classes. `class_names()` returns all class names, string [classes].

    Args:
      model: network with the weights to serve.
      task: task whose `predict` interprets the outputs.
      source: data set of the run: the specs of decoded inputs, preprocessing and class names.
      dtype: compute dtype of the network.
      any_size: whether `serve` accepts images of any size and resizes them as in training.
    """

    def __init__(
        self,
        model: tf.Module,
        task: Task,
        source: pipelines.Source,
        dtype: tf.DType,
        *,
        any_size: bool = False,
    ) -> None:
        super().__init__(name="tapeline")
        self._model, self._task, self._source, self._dtype = model, task, source, dtype
        self._any_size = any_size
        self.input_names = input_names(source)
        self.specs = {  # of a batch of each tensor of the decoded inputs, by name
            name: tf.TensorSpec([None, *spec.shape], spec.dtype, name)
            for name, spec in zip(self.input_names, tf.nest.flatten(source.decoded[0]), strict=True)
        }
        signature = list(self.specs.values())
        if any_size:
            ((name, spec),) = self.specs.items()
            signature = [tf.TensorSpec([None, None, None, spec.shape[-1]], spec.dtype, name)]
        self.serve = tf.function(self._serve, input_signature=signature, autograph=False)
        names = source.class_names
        self.class_names = tf.function(
            lambda: tf.constant(names, tf.string), input_signature=[], autograph=False
        )

    @property
    def noun(self) -> str:
        """Word for an example in messages: "image" or "example"."""
        return "image" if self._source.has_images else "example"

    def predictions(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the task's predictions, [rows, ...] each, by name.

        `inputs` are a batch of each tensor of the decoded inputs, [rows, ...], in the order of
        `input_names`.
        """
        specs = self.specs.values()
        whole = [tf.ensure_shape(x, spec.shape) for x, spec in zip(inputs, specs, strict=True)]
        nest = tf.nest.pack_sequence_as(self._source.decoded[0], whole)
        return predict(self._model, self._task, self._source, nest, self._dtype)

    def _serve(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._any_size:
            inputs = (self._source.resize(inputs[0]),)
        else:
            # `ensure_shape` alone is removed where the signature's shape is taken for granted.
            checks = [
                tf.debugging.assert_equal(
                    tf.shape(x)[1:], spec.shape[1:], f"{name} must have shape {spec.shape}"
                )
                for x, (name, spec) in zip(inputs, self.specs.items(), strict=True)
            ]
            with tf.control_dependencies([check for check in checks if check is not None]):
                inputs = tuple(map(tf.identity, inputs))
        found = self.predictions(*inputs)
        if self._source.class_names and "classes" in found:
            names = tf.constant(self._source.class_names)
            found["labels"] = tf.gather(names, found["classes"])
        return found


def input_names(source: pipelines.Source) -> tuple[str, ...]:
    """Returns the name of each tensor of the decoded inputs, in the order of `tf.nest.flatten`.

    One tensor is named "images" if the inputs are images, else "inputs". Tensors of a dict have the
    names of the keys. Tensors of another nest are named "inputs_0", "inputs_1" and so on.
    """
    inputs = source.decoded[0]
    if isinstance(inputs, tf.TensorSpec):
        return ("images" if source.has_images else "inputs",)
    if isinstance(inputs, Mapping) and all(isinstance(x, tf.TensorSpec) for x in inputs.values()):
        return tuple(sorted(inputs))
    return tuple(f"inputs_{index}" for index in range(len(tf.nest.flatten(inputs))))


def predict(
    model: Any, task: Task, source: pipelines.Source, inputs: Any, dtype: tf.DType
) -> dict[str, tf.Tensor]:
    """Preprocesses inputs and calls the model; returns the task's predictions by name.

    Args:
      model: network.
      task: task whose `predict` interprets the outputs of the model.
      source: data set with the preprocessing.
      inputs: nest of decoded inputs, [rows, ...] each.
      dtype: compute dtype of the model.

    Returns:
      Predictions, [rows, ...] each, by name.
    """
    outputs = model(source.preprocess(inputs), ForwardContext(dtype=dtype))
    return dict(task.predict(outputs))
