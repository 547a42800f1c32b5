"""Makes a new task for each run of a verification."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pipelines
from engine.assembly import factories
from engine.config.schema import Config
from engine.tasks.task import Task

MakeTask = Callable[[], Task]


def task_maker(task: MakeTask | Task | None, config: Config, source: pipelines.Source) -> MakeTask:
    """Returns a function that makes a new task for each run.

    Args:
      task: function or class that makes a task; a task, which is copied; None: as configured.
      config: all options.
      source: data set for whose targets the task of the options is built.

    Raises:
      ValueError: if `task` is neither a task nor callable, or if two calls of `task` return the
        same task. The returned function raises ValueError if a task cannot be copied.
    """
    if task is None:
        return lambda: factories.build_task(config, source)

    if not isinstance(task, Task) and not callable(task):
        raise ValueError(f"{type(task).__name__} is not a task: derive it from tl.Task")

    def copied() -> Task:
        try:
            return copy.deepcopy(task)  # type: ignore[return-value]
        except Exception as error:
            raise ValueError(
                f"the task cannot be copied ({error}): give a function that makes one"
            ) from error

    if hasattr(task, "metrics") and not isinstance(task, type):
        return copied
    if task() is task():
        raise ValueError(
            "make_task gave the same task twice: give a function that makes a new one each time, "
            "or the task itself"
        )
    return task
