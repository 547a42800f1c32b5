"""The registry of the sources of examples that users add, by the names that `--dataset` accepts::

    @SOURCES.register
    def scenes():
        return tapeline.tfds("scenes", ...)

A factory returns a `pipelines.Source`; its keyword-only parameters become flags, such as
`--dataset.fold=3`. Its names take precedence over those of TensorFlow Datasets. The registry is not
in `pipelines`, because importing that package imports TensorFlow.
"""

from __future__ import annotations

from engine.config.registry import Registry

SOURCES = Registry("source", {})
