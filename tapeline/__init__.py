"""Tapeline, a training engine for TensorFlow: the API for scripts.

    import tapeline as tl

    tl.main(["--dataset=digits", "--epochs=2"])  # tl.main(): with the command line's options

`import tapeline` imports neither TensorFlow nor the engine; each name is imported on first use.
"""

from __future__ import annotations

import importlib
import operator
from typing import Any

from tapeline.cli import check_packages

_IMPORTS = {
    "__version__": "engine:__version__",
    "main": "tapeline.script:main",
    "parse": "engine.config.flags:parse",
    "verify": "engine.verify:verify",
    "Classification": "engine.tasks.classification:Classification",
    "Task": "engine.tasks.task:Task",
    "TaskOutput": "engine.tasks.task:TaskOutput",
    "arrays": "pipelines:arrays",
    "augment": "pipelines:register_pair_augmentation",
    "cross_entropy": "engine.tasks.cross_entropy:cross_entropy",
    "csv": "pipelines:csv",
    "folder": "pipelines.sources.folder:folder",
    "from_dataset": "pipelines:from_dataset",
    "keras": "engine.models.keras_adapter:keras_model",
    "metric": "engine.tasks.registry:METRICS.register",
    "metrics": "engine.tasks.metrics:",
    "model": "engine.models.registry:NETWORKS.register",
    "models": "tapeline.models:",
    "module": "engine.models.module_adapter:module_model",
    "optimizer": "engine.optim.registry:OPTIMIZERS.register",
    "random_access": "pipelines:random_access",
    "register_augmentation": "pipelines:register_augmentation",
    "schedule": "engine.optim.registry:SCHEDULES.register",
    "source": "engine.assembly.registry:SOURCES.register",
    "task": "engine.tasks.registry:TASKS.register",
    "text": "pipelines:text",
    "tfds": "pipelines.sources.tfds:tfds",
    "view": "pipelines:register_view",
}

__all__ = list(_IMPORTS)


def __getattr__(name: str) -> Any:
    if name not in _IMPORTS:
        raise AttributeError(f"module 'tapeline' has no attribute {name!r}")
    if problem := check_packages():
        raise ImportError(problem)
    module, _, attribute = _IMPORTS[name].partition(":")
    imported = importlib.import_module(module)
    return operator.attrgetter(attribute)(imported) if attribute else imported
