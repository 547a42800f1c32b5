"""Random nested structures of arrays for property tests, and data sources made of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from pipelines import Source, nests
from pipelines.splits import ArrayTable, whole


class Pair(NamedTuple):
    """A named tuple, one of the structures that `tf.nest` supports."""

    first: object
    second: object


DTYPES = ("uint8", "int32", "int64", "float32", "float64", "bool", "float16")
_leaves = st.tuples(
    st.sampled_from(DTYPES), st.lists(st.integers(1, 3), max_size=3).map(tuple)
).map(lambda leaf: np.zeros(leaf[1], leaf[0]))
examples = st.recursive(
    _leaves,
    lambda nest: st.one_of(
        st.dictionaries(st.sampled_from("abc"), nest, min_size=1, max_size=3),
        st.tuples(nest),
        st.tuples(nest, nest),
        st.builds(Pair, nest, nest),
    ),
    max_leaves=4,
)


def filled(nest, count: int, seed: int):
    """Returns a structure of random arrays [count, ...] with the dtypes of one example's structure.

    Args:
      nest: structure of the arrays of one example.
      count: number of examples.
      seed: seed of the values, integers from 0 to 249, or booleans.
    """
    import tensorflow as tf

    random = np.random.default_rng(seed)

    def array(leaf):
        values = random.integers(0, 2 if leaf.dtype == bool else 250, (count, *leaf.shape))
        return values.astype(leaf.dtype)

    return tf.nest.map_structure(array, nest)


def source_of(inputs, targets, *, held_out: int = 0, name: str = "arrays") -> Source:
    """Returns a source of arrays [n, ...]; its last `held_out` examples are for validation."""
    import tensorflow as tf

    arrays = (inputs, targets)
    count = len(tf.nest.flatten(arrays)[0])
    split = whole("train", ArrayTable(arrays), count)
    return Source(
        name=name,
        version="1",
        train=split.part(0, count - held_out, "train"),
        validation_sets=(
            {"validation": split.part(count - held_out, count, "validation")} if held_out else {}
        ),
        decoded=nests.spec_of(arrays),
    )
