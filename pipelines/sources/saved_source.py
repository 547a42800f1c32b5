"""JSON description of a data set, saved with the weights that were trained on it.

The description suffices to use the weights without the data: specs, classes and preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.nests import Nest, Spec
from pipelines.preprocessing import Preprocessing
from pipelines.source import Source
from pipelines.splits import ArrayTable, whole


def source_to_json(source: Source) -> dict[str, Any]:
    """Returns a description of a source, without its data, as a dict that `json.dumps` accepts.

    The dict has the name, version, specs, class names, preprocessing and, for images, the stored
    shape and the options of resizing. `source_from_json` reads the dict.
    """
    inputs, targets = source.decoded
    content: dict[str, Any] = {
        "name": source.name,
        "version": source.version,
        "inputs": _spec_to_json(inputs),
        "targets": _spec_to_json(targets),
        "class_names": list(source.class_names),
        "preprocess": source.preprocess.to_json(),
    }
    if source.tokens:
        content["tokens"] = source.tokens
    if source.has_images:
        stored = source.stored_shape
        content |= {
            "stored_shape": None if stored is None else list(stored),
            "fit": source.fit,
            "antialias": source.antialias,
        }
    return content


def source_from_json(content: Mapping[str, Any]) -> Source:
    """Returns the source from the dict of `source_to_json`; its only split, train, is empty."""
    inputs, targets = _spec_from_json(content["inputs"]), _spec_from_json(content["targets"])
    stored = content.get("stored_shape")
    return Source(
        name=content["name"],
        version=content["version"],
        train=whole("", ArrayTable((_no_examples(inputs), _no_examples(targets))), 0),
        decoded=(inputs, targets),
        class_names=tuple(content["class_names"]),
        tokens=content.get("tokens", ""),
        preprocess=Preprocessing.from_json(content["preprocess"]),
        stored_shape=None if stored is None else tuple(stored),
        fit=content.get("fit", "pad"),
        antialias=content.get("antialias", True),
    )


def _no_examples(spec: Spec) -> Nest:
    return tf.nest.map_structure(
        lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype.as_numpy_dtype), spec
    )


def _spec_to_json(spec: Spec) -> Any:
    """Returns [dtype, shape] for a tensor's spec, and a dict for a nest.

    The dict is {"mapping": {key: spec, ...}} or {"tuple": [spec, ...]}.
    """
    if isinstance(spec, Mapping):
        return {"mapping": {key: _spec_to_json(spec[key]) for key in sorted(spec)}}
    if isinstance(spec, (tuple, list)):
        return {"tuple": [_spec_to_json(each) for each in spec]}
    return [spec.dtype.name, spec.shape.as_list()]


def _spec_from_json(content: Any) -> Spec:
    if isinstance(content, list):
        return tf.TensorSpec(content[1], content[0])
    if "mapping" in content:
        return {key: _spec_from_json(each) for key, each in content["mapping"].items()}
    return tuple(map(_spec_from_json, content["tuple"]))
