import numpy as np
import pytest
from scipy import stats

from pipelines.augmentation import lookup


def test_look_up():
    values = np.random.default_rng(0).normal(size=lookup.CELLS + 1).astype(np.float32)
    grid = lookup.uniform_grid()
    on = lookup.interpolate(values, grid[:-1].astype(np.float32))
    np.testing.assert_array_equal(on, values[:-1])
    halfway = lookup.interpolate(values, (grid[:-1] + 0.5 / lookup.CELLS).astype(np.float32))
    np.testing.assert_allclose(halfway, (values[:-1] + values[1:]) / 2, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2, 0.4, 1.0, 1.5, 2.0, 10.0, 100.0])
def test_larger_beta_matches_scipy(alpha):
    quantiles = lookup.mixup_weight_quantiles(alpha)
    assert quantiles.shape == (lookup.CELLS + 1,) and quantiles.dtype == np.float32
    expected = stats.beta.ppf((1 + lookup.uniform_grid()) / 2, alpha, alpha)
    np.testing.assert_allclose(quantiles[:-1], expected[:-1], atol=1e-7)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 1.5, 10.0, 100.0])
def test_error_between_quantiles(alpha):
    """Interpolated quantiles have a distribution function that is off by at most 1 / CELLS."""
    numbers = (np.arange(1 << 15) / (1 << 15)).astype(np.float32)
    weights = (
        lookup.interpolate(lookup.mixup_weight_quantiles(alpha), numbers).numpy().astype(np.float64)
    )
    assert weights.min() >= 0.5 and weights.max() <= 1 and (np.diff(weights) >= 0).all()
    # A weight close to 1 is rounded to float32, where the distribution function may be steep.
    low, high = (
        2 * stats.beta.cdf(np.clip(weights + rounding, 0, 1), alpha, alpha) - 1
        for rounding in (-1e-7, 1e-7)
    )
    assert (low <= numbers + 1 / lookup.CELLS).all() and (high >= numbers - 1 / lookup.CELLS).all()


@pytest.mark.parametrize("alpha", [5e-324, 1e-9, 1e-3])
def test_tiny_alpha_rarely_mixes(alpha):
    quantiles = lookup.mixup_weight_quantiles(alpha)
    assert np.isfinite(quantiles).all()
    assert np.mean(quantiles > 0.9999) > 0.98
