"""Builds tasks and metrics by their registered names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.config.registry import call, parameters
from engine.runtime.user_code import place
from engine.tasks.metrics import MeanOfFunction, Metric
from engine.tasks.options import TaskOptions
from engine.tasks.registry import DEFAULT_METRICS, METRICS, TASKS
from engine.tasks.task import Task
from pipelines import Source

# Built-in metrics that get the losses of positions, and not labels and predictions.
_OF_LOSSES = ("perplexity", "bits_per_character")


def build_task(
    options: TaskOptions,
    source: Source,
    *,
    labels: Callable[[], np.ndarray],
    arguments: Mapping[str, Any] | None = None,
) -> Task:
    """Returns a new task, built from the options for the targets of a data set.

    Args:
      options: options of the task.
      source: data set, which gives the number of classes, or of labels for "multi_label".
      labels: returns the labels of the training split, integer [examples, ...]; called only for
        balanced class weights.
      arguments: further arguments of the task by name, which override those from the options; None:
        no further arguments.

    Raises:
      ValueError: for an unknown task or metric; for an option that the task does not take, or that
        does not fit the data; if a required parameter of the task has no value; if the registered
        class or function does not return a `Task`.
    """
    factory, name = TASKS[options.task], options.task
    accepted = parameters(factory)
    own = arguments or {}
    given = {
        "label_smoothing": options.label_smoothing,
        "classes": options.classes,
        "class_weights": options.class_weights,
        "ignore_label": None if options.ignore_label < 0 else options.ignore_label,
    }
    for option, value in given.items():
        is_given = value is not None if option == "ignore_label" else bool(value)
        if is_given and option not in accepted:
            raise ValueError(f"--{option}={value}: the task {name} does not take it")
    if options.metrics and "metrics" not in accepted:
        raise ValueError(f"--metrics={options.metrics}: the task {name} has its own metrics")
    if options.class_weights:
        given["class_weights"] = class_weights(options, source, labels)
    given["regression_loss"] = options.regression_loss
    build = functools.partial(_metric_of, name, source, options.classes)
    # Without names, a task of the user's has the metrics that it has by default.
    if options.metrics or name in DEFAULT_METRICS:
        given["metrics"] = {each: build(each) for each in options.names}
    task = call(f"the task {name}", factory, {**given, **own})
    if not isinstance(task, Task):
        raise ValueError(f"the task {name} is a {type(task).__name__}: derive it from tl.Task")
    return task


def class_weights(
    options: TaskOptions, source: Source, labels: Callable[[], np.ndarray]
) -> tuple[float, ...]:
    """Returns one weight per class: the numbers of `--class_weights`, or balanced weights.

    The balanced weight of a class is n / (classes * examples of the class), as in scikit-learn,
    where n is the number of labels that count; a class without examples has the weight 0. Labels
    that equal `--ignore_label`, or that are not in 0 .. classes - 1, do not count. If each class
    has examples, the mean of the balanced weights over the examples is 1.

    Args:
      options: options of the task, with class weights that are not empty.
      source: data set, which gives the number of classes if `--classes` is 0.
      labels: returns the labels of the training split, integer [examples, ...]; called only for
        balanced weights.

    Raises:
      ValueError: if the number of weights in the options is not the number of classes.
    """
    classes = options.classes or source.classes
    if options.class_weights != "balanced":
        if len(options.numbers) != classes:
            raise ValueError(
                f"--class_weights: gives {len(options.numbers)} weights for {classes} classes"
            )
        return options.numbers
    known = labels().ravel()
    known = known[(known >= 0) & (known < classes) & (known != options.ignore_label)]
    counts = np.bincount(known, minlength=classes)
    return tuple(len(known) / (classes * count) if count else 0.0 for count in counts.tolist())


def _metric_of(task: str, source: Source, classes: int, name: str) -> Metric:
    """Returns the metric of a name in `--metrics`, for a task and a data set.

    Args:
      task: name of the task.
      source: data set, which gives the number of labels of the task "multi_label", and the number
        of classes of other tasks if `classes` is 0.
      classes: value of `--classes`; not used for "multi_label".
      name: name of the metric.

    Raises:
      ValueError: for an unknown name, and for a metric that the task or the data does not support;
        see `build_metric`.
    """
    if task == "multi_label":
        from engine.tasks import multi_label

        shape = getattr(source.targets, "shape", None)
        classes = shape[0] if shape is not None and shape.rank else 1
        if name in METRICS.built_in and name not in _OF_LOSSES:
            return multi_label.metric(name, classes)
    if name in _OF_LOSSES and task in TASKS.built_in and task != "language_model":
        raise ValueError(f"--metrics={name}: is for --task=language_model, and this is {task}")
    return build_metric(name, classes or source.classes)


def build_metric(name: str, classes: int) -> Metric:
    """Returns the metric that is registered under a name.

    A registered `Metric` is returned as it is. A registered subclass of `Metric`, and a registered
    function that has no parameter but `classes`, or none, are called to create the metric. Any
    other function becomes a `MeanOfFunction`.

    Args:
      name: name of the metric.
      classes: number of classes, for metrics with a parameter `classes`; 0: the targets are not
        classes.

    Raises:
      ValueError: for an unknown name; if `classes` is 0 and the registered class or function that
        is called has a parameter `classes`; if it does not return a `Metric`.
    """
    entry = METRICS[name]
    if isinstance(entry, Metric):
        return entry
    accepted = parameters(entry)
    if inspect.isclass(entry) or accepted <= {"classes"}:
        if "classes" in accepted and not classes:
            raise ValueError(f"--metrics={name}: counts classes, and the targets have none")
        made = entry(**({"classes": classes} if "classes" in accepted else {}))
        if not isinstance(made, Metric):
            raise ValueError(
                f"{place(entry)}--metrics={name}: has to return a tl.metrics.Metric, and returned "
                f"{type(made).__name__}; a metric of each example takes labels and predictions"
            )
        return made
    return MeanOfFunction(entry)
