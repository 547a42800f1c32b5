"""Nests of tensors: the structures that `tf.nest` knows, and the specs of one example's tensors.

A spec is a nest of `tf.TensorSpec` of one example, without a batch axis. An example's nest may be
a tensor, a dict, a tuple or a named tuple, at any depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Nest = Any  # a tensor, array or spec; or a dict, tuple or named tuple of nests
Spec = Any  # a nest of tf.TensorSpec of one example


def paths(nest: Nest) -> list[str]:
    """Returns the path of each leaf, such as "box/width" or "0", in the order of `tf.nest`.

    The path of a nest that is a leaf itself is "".
    """
    return [path.lstrip("/") for path, _ in _leaves(nest)]


def _leaves(nest: Nest, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(nest, Mapping):
        for key in sorted(nest):
            yield from _leaves(nest[key], f"{path}/{key}")
    elif isinstance(nest, (tuple, list)):
        names = getattr(nest, "_fields", range(len(nest)))
        for name, part in zip(names, nest, strict=True):
            yield from _leaves(part, f"{path}/{name}")
    else:
        yield path, nest


def example_bytes(spec: Spec) -> int:
    """Returns the size in bytes of one example of a spec with fixed shapes and numeric dtypes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.size for leaf in tf.nest.flatten(spec))


def described(spec: Spec) -> str:
    """Formats a spec for messages, such as "8x8x1 uint8" or "ids 64 int32, mask 64 float32"."""
    texts = []
    for path, leaf in zip(paths(spec), tf.nest.flatten(spec), strict=True):
        shape = "x".join("?" if side is None else str(side) for side in leaf.shape) or "scalar"
        texts.append(f"{path} {shape} {leaf.dtype.name}".strip())
    return ", ".join(texts) or "nothing"


def signature(spec: Spec) -> str:
    """Returns the paths, shapes and dtypes of a spec's leaves as one text, to compare specs by."""
    leaves = zip(paths(spec), tf.nest.flatten(spec), strict=True)
    return ";".join(f"{path}:{list(leaf.shape)}:{leaf.dtype.name}" for path, leaf in leaves)


def checked_spec(where: str, spec: Spec) -> Spec:
    """Returns `spec` unchanged, after a check of its leaves.

    `where` begins the message and names the data, such as "the inputs of mnist".

    Raises:
      ValueError: when a leaf has no fixed shape, or is neither numeric nor bool.
    """
    for path, leaf in zip(paths(spec), tf.nest.flatten(spec), strict=True):
        name = f"{where}{f' ({path})' if path else ''}"
        if not leaf.shape.is_fully_defined():
            raise ValueError(
                f"{name} vary in shape, {leaf.shape}: give all examples one shape, by padding"
            )
        if not (leaf.dtype.is_floating or leaf.dtype.is_integer or leaf.dtype.is_bool):
            raise ValueError(
                f"{name} are {leaf.dtype.name}; inputs and targets have to be numbers: "
                "encode them when the source reads them"
            )
    return spec


def spec_of(arrays: Nest) -> Spec:
    """Returns the spec of one example of a nest of arrays [n, ...]."""
    return tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape[1:], tf.as_dtype(array.dtype)), arrays
    )


def without_lists(nest: Nest) -> Nest:
    """Returns a nest with lists converted to tuples, and mappings to dicts.

    This is for tf.data, which converts a list to a tensor.
    """
    if isinstance(nest, Mapping):
        return {key: without_lists(value) for key, value in nest.items()}
    if hasattr(nest, "_fields"):
        return type(nest)(*map(without_lists, nest))
    return tuple(map(without_lists, nest)) if isinstance(nest, (tuple, list)) else nest


def empty(spec: Spec, examples: int) -> Nest:
    """Returns uninitialized arrays for a number of examples: a nest of [examples, ...]."""
    return tf.nest.map_structure(
        lambda leaf: np.empty((examples, *leaf.shape), leaf.dtype.as_numpy_dtype), spec
    )
