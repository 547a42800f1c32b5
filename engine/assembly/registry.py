"""The registry of the sources of examples that users add, by the names that `--dataset` accepts::

    @SOURCES.register
    def scenes():
        return tapeline.tfds("scenes", ...)

A factory returns a source description, such as that of `tapeline.tfds`, or a `pipelines.Source`.
The keyword-only parameters of the factory become flags, such as `--dataset.fold=3`. Registered
names take precedence over those of TensorFlow Datasets. The registry is not in `pipelines`, because
importing that package imports TensorFlow.
"""

from __future__ import annotations

from engine.config.registry import Registry

SOURCES = Registry("source", {})
