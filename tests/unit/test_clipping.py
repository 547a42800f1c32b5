"""Gradient clipping, compared with NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim.clipping import Clip


def gradients(scale: float = 1.0) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [
        (scale * random.standard_normal(shape)).astype(np.float32)
        for shape in [(3,), (4, 5), (2, 2, 3, 4), ()]
    ]


def norm(tensors) -> float:
    return float(np.sqrt(sum(np.sum(np.square(t, dtype=np.float64)) for t in tensors)))


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e8])
def test_global_norm(scale):
    given = gradients(scale)
    same, length = Clip()(list(map(tf.constant, given)))
    assert float(length) == pytest.approx(norm(given), rel=1e-6)
    for ours, theirs in zip(same, given, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("limit", [0.5, 3.0])
def test_clips_to_norm(limit):
    given = gradients()
    clipped, length = Clip(norm=limit)(list(map(tf.constant, given)))
    assert float(length) == pytest.approx(norm(given), rel=1e-6)  # before clipping
    assert norm([part.numpy() for part in clipped]) == pytest.approx(limit, rel=1e-6)
    for ours, theirs in zip(clipped, given, strict=True):
        np.testing.assert_allclose(ours, theirs * (limit / norm(given)), rtol=1e-6)


def test_short_gradient_keeps_bits():
    given = gradients()
    clipped, _ = Clip(norm=norm(given) * 1.001)(list(map(tf.constant, given)))
    for ours, theirs in zip(clipped, given, strict=True):
        assert ours.numpy().tobytes() == theirs.tobytes()


def test_clips_value_before_norm():
    given = gradients()
    cut = [np.clip(part, -0.7, 0.7) for part in given]
    clipped, length = Clip(norm=1.0, value=0.7)(list(map(tf.constant, given)))
    assert float(length) == pytest.approx(norm(given), rel=1e-6)
    for ours, theirs in zip(clipped, cut, strict=True):
        np.testing.assert_allclose(ours, theirs / max(1.0, norm(cut)), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_norm_shows_nonfinite(bad, where):
    """An infinity or a nan in any gradient makes the norm not finite."""
    given = gradients()
    given[where] = np.full_like(given[where], bad)
    assert not np.isfinite(Clip(norm=1.0)(list(map(tf.constant, given)))[1])
