"""Checks of the output of a task, and its sums over the rows of a micro-batch."""

from __future__ import annotations

import tensorflow as tf

from engine.core import metrics
from engine.runtime.user_code import place, user_code_location
from engine.tasks.task import Task, TaskOutput
from pipelines import Batch


def checked(task: Task, output: TaskOutput, batch: Batch) -> TaskOutput:
    """Returns the output of a task with losses and weights converted to tensors.

    Args:
      task: task that returned the output, for error messages.
      output: result of the call of the task.
      batch: micro-batch that the task was called with.

    Raises:
      ValueError: if the output is not a `TaskOutput`, if the losses or weights are not one number
        for each row, or if the first axis of a metric argument is not the rows.
    """
    where, rows = f"{place(*code_of(task))}{type(task).__name__}", batch.mask.shape
    if not isinstance(output, TaskOutput):
        raise ValueError(f"{where} returned a {type(output).__name__}: return a tl.TaskOutput")
    what = {"losses": output.losses, "weights": output.weights}
    what = {name: tf.convert_to_tensor(each) for name, each in what.items() if each is not None}
    for name, value in what.items():
        if not value.shape.is_compatible_with(rows):
            raise ValueError(
                f"{where} returns {name} of shape {value.shape.as_list()}: one "
                f"number for each of the {rows[0]} rows is needed; average over other axes alone"
            )
    for name, arguments in output.metrics.items():
        if not isinstance(arguments, tuple | list):
            raise ValueError(
                f"{where} gives the metric {name} a {type(arguments).__name__}: give a tuple of "
                "its arguments"
            )
        for value in map(tf.convert_to_tensor, arguments):
            if not value.shape[:1].is_compatible_with(rows):
                raise ValueError(
                    f"{where} gives the metric {name} a tensor of shape "
                    f"{value.shape.as_list()}: its first axis must be the {rows[0]} rows"
                )
    return output._replace(**what)


def masked_sums(task: Task, output: TaskOutput, batch: Batch) -> tf.Tensor:
    """Returns the sums of loss and metrics over the valid rows, as `metrics.masked_sums` does.

    Raises:
      ValueError: as raised by `metrics.masked_sums`; unless it comes from the user's code, the name
        and place of the task are added to the message.
    """
    try:
        return metrics.masked_sums(output, batch.mask, task.metrics)
    except ValueError as error:
        if user_code_location(error):
            raise
        where = f"{place(*code_of(task))}{type(task).__name__}"
        raise ValueError(f"{where}: {error}") from error


def code_of(task: Task) -> tuple[object, ...]:
    """Returns the `__call__` and the class of a task, by which `place` locates user code."""
    return type(task).__call__, type(task)
