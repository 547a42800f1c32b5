"""Tapeline, a training engine for TensorFlow: the API for scripts.

    import tapeline as tl

    tl.main(["--dataset=digits", "--epochs=2"])

Importing this package imports neither TensorFlow nor the engine; each name is imported on first
use.
"""

from __future__ import annotations

import importlib
from typing import Any

from tapeline.cli import check_packages

_PLACES = {
    "__version__": "engine:__version__",
    "main": "tapeline.command:main",
    "parse": "engine.config.flags:parse",
    "verify": "engine.verify:verify",
    "Classification": "engine.tasks.classification:Classification",
    "Scores": "engine.tasks.classification:Scores",
    "Task": "engine.tasks.classification:Task",
    "models": "engine.models:",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tapeline' has no attribute {name!r}")
    if problem := check_packages():
        raise ImportError(problem)
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
