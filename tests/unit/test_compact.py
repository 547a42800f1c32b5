"""Benchmark results are written as JSON with one line for each run."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compact import dumps

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_is_the_same_json(value):
    assert json.loads(dumps(value)) == value


def test_one_line_for_each_run():
    results = {"date": "2026", "recipes": {"a": [{"seed": 0, "rows": [1, 2]}, {"seed": 1}]}}
    lines = dumps(results).splitlines()
    assert '   {"seed": 0, "rows": [1, 2]},' in lines and '   {"seed": 1}' in lines
