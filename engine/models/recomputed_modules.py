"""Selects modules of a model by name, and makes their calls recomputed in the backward pass."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from engine.models.layers import Attention, MaxPool
from engine.models.module_adapter import ModuleModel
from engine.models.properties import named_modules
from engine.models.recompute import recomputed
from engine.models.sequential import Sequential, pooled

_SHOWN = 20  # maximum number of names in an error


def recompute(model: tf.Module, patterns: Sequence[str], compiled_for: str = "") -> list[str]:
    """Makes the calls of the modules whose names match a pattern `recomputed`.

    Such a module gets a subclass of its class, of the same name.

    Args:
      model: the model.
      patterns: patterns of names, as in `fnmatch`, where `*` also matches `/`. The name of a module
        is its attribute path, such as "layers/2"; that of a layer of a Keras model is its position
        and class, such as "03_conv2d".
      compiled_for: as in `recomputed`.

    Returns:
      The names of the modules, without those of modules inside others by name.

    Raises:
      ValueError: if a pattern matches no name.
    """
    if not patterns:
        return []
    modules = callable_modules(model)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in modules):
            names = list(modules)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"--recompute={pattern}: no module of the network has such a name; give some of "
                f"{', '.join(names[:_SHOWN])}{more}, or a pattern"
            )
    found = [n for n in modules if any(fnmatch.fnmatchcase(n, each) for each in patterns)]
    outer = [name for name in found if not any(name.startswith(f"{each}/") for each in found)]
    for each in {id(modules[name]): modules[name] for name in outer}.values():
        if isinstance(each, tf.Module):
            kind: Any = type(each)
            kind = _recomputing(kind, compiled_for)
            object.__setattr__(each, "__class__", kind)  # past the tracking of attributes
    for part in (model, *model.submodules):
        if layers := getattr(part, "keras_layers", {}):
            part.recompute([name for name in outer if name in layers], compiled_for)
    return outer


def callable_modules(model: tf.Module) -> dict[str, Any]:
    """Returns the modules by name that can be recomputed, without the whole network.

    A convolution is left out if it is computed together with the max pool after it, and the query,
    key and value of an attention, which are computed as one product.
    """
    joined = (
        [layer for _, layer, pool in pooled(model.layers) if isinstance(pool, MaxPool)]
        if isinstance(model, Sequential)
        else []
    )
    joined += [
        projection
        for module in model.submodules
        if isinstance(module, Attention)
        for projection in module.joined
    ]
    whole = [model.module] if isinstance(model, ModuleModel) else []
    whole += [model.keras_model] if hasattr(model, "keras_model") else []
    return {
        name: module
        for name, module in named_modules(model).items()
        if callable(module) and not any(module is each for each in (*joined, *whole))
    }


@functools.cache
def _recomputing(kind: Any, compiled_for: str) -> Any:
    """Returns a subclass of a class of modules whose calls are recomputed."""

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        own = super(made, self).__call__
        return recomputed(
            lambda arguments, named: own(*arguments, **named),
            arguments,
            named,
            compiled_for=compiled_for,
        )

    values = {"__call__": call, "__module__": kind.__module__, "__doc__": kind.__doc__}
    made = type(kind)(kind.__name__, (kind,), values)
    return made
