"""Builds tasks and metrics by their registered names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.config.registry import call, parameters
from engine.tasks.metrics import MeanOfFunction, Metric
from engine.tasks.options import TaskOptions
from engine.tasks.registry import DEFAULT_METRICS, METRICS, TASKS
from engine.tasks.task import Task
from pipelines import Source


def build_task(
    options: TaskOptions,
    source: Source,
    *,
    labels: Callable[[], np.ndarray],
    arguments: Mapping[str, Any] | None = None,
) -> Task:
    """Returns a new task as the options specify, for the targets of a data set.

    Args:
      options: options of the task.
      source: data set, which gives the number of classes of the metrics.
      labels: returns the labels of the training split, int [n]; called for balanced class weights.
      arguments: further arguments of the task, by name.

    Raises:
      ValueError: for an option that the task does not take, or that does not fit the data.
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
        if value and option not in accepted:
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
    """Returns the weight of each class, as numbers in the options or balanced.

    Balanced weights are n / (classes * examples of the class), whose mean over examples is 1, as in
    scikit-learn; a class without examples has 0.

    Raises:
      ValueError: if the number of weights in the options is not that of the classes.
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
    """Returns the metric that `--metrics` calls `name`, for a task and the classes of its data."""
    if task == "multi_label":
        from engine.tasks import multi_label

        classes = source.targets.shape[0] if getattr(source.targets, "shape", None) else 1
        if name in METRICS.built_in:
            return multi_label.metric(name, classes)
    return build_metric(name, classes or source.classes)


def build_metric(name: str, classes: int) -> Metric:
    """Returns a new metric of a registered name, for a number of classes.

    Raises:
      ValueError: for an unknown name, and for a metric that needs classes if `classes` is 0.
    """
    entry = METRICS[name]
    if isinstance(entry, Metric):
        return entry
    accepted = parameters(entry)
    if inspect.isclass(entry) or accepted <= {"classes"}:
        if "classes" in accepted and not classes:
            raise ValueError(f"--metrics={name}: counts classes, and the targets have none")
        return entry(**({"classes": classes} if "classes" in accepted else {}))
    return MeanOfFunction(entry)
