"""Blocks of several variants, timed in turns, and statistics of their times."""

from __future__ import annotations

import pytest

from engine.benchmark.blocks import interleave_blocks, median_ratio, spread


def test_interleaved_order():
    """Each round runs one block of every variant, starting with another one than before."""
    order: list[str] = []

    def block(name: str, seconds: float):
        def take() -> float:
            order.append(name)
            return seconds

        return take

    found = list(interleave_blocks({"a": block("a", 1.0), "b": block("b", 2.0)}, 3))
    assert found == [{"a": 1.0, "b": 2.0}] * 3
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_percentiles_and_ratios():
    assert spread([3.0, 1.0, 2.0], 50, 90) == {"median": 2.0, "p90": pytest.approx(2.8)}
    # A machine that becomes half as fast changes both values of a pair.
    assert median_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == 2.0
