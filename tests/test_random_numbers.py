"""Normal random numbers: their distribution and their independence."""

import numpy as np
import pytest
import scipy.stats

import random_numbers
from harness.quiet_tensorflow import tf


def test_normal_draws_are_normal_and_independent():
    noise = random_numbers.normal((256, 1024), (5, 7)).numpy()
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.isfinite(noise).all() and 4 < np.abs(noise).max() < 5.4
    # Correlation at every shift
    lags = np.fft.ifft2(np.abs(np.fft.fft2(noise)) ** 2).real / noise.size
    assert lags[0, 0] == pytest.approx(1, abs=0.01)
    assert np.abs(lags.ravel()[1:]).max() < 6 / np.sqrt(noise.size)
    edges = random_numbers._quantiles()(tf.constant([0, 1 - 2.0**-23], tf.float32)).numpy()
    np.testing.assert_allclose(edges, scipy.stats.norm.ppf([2.0**-24, 1 - 2.0**-24]), rtol=1e-5)
