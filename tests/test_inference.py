"""Long sounds restored window by window, and principal axes."""

import numpy as np
import pytest
import scipy.ndimage

import inference
from inference import restore_long


def identity(windows, observed):
    return windows


@pytest.mark.parametrize("samples", [1024, 1025, 5000, 8192])
def test_identity_returns_the_sound_to_its_ends(samples):
    signal = np.random.default_rng(0).standard_normal(samples)
    restored = restore_long(signal, np.zeros(samples), identity, 1024, 64)
    np.testing.assert_allclose(restored, signal, atol=1e-6)


def test_windows_that_reproduce_their_input_weigh_more():
    """The model knows only constants, so windows across the step from 1 to -1 are wrong."""
    signal = np.concatenate([np.ones(4000), -np.ones(4000)])
    mask = np.zeros(8000)
    mask[2000:2200] = 1

    def constants(windows, observed):
        return np.broadcast_to(np.median(windows, axis=1, keepdims=True), windows.shape)

    restored = restore_long(signal * (1 - mask), mask, constants, 1024, 64)
    assert np.abs(restored - signal)[:3900].max() < 1e-3  # the gap included
    assert np.abs(restored - signal)[4100:].max() < 1e-3


def test_the_result_does_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    signal, mask = rng.standard_normal(9001), (rng.random(9001) < 0.2).astype(float)

    def smooth(windows, observed):
        return scipy.ndimage.uniform_filter1d(windows, 9, axis=1)

    whole = restore_long(signal, mask, smooth, 256, 32)
    monkeypatch.setattr(inference, "WINDOWS_PER_BLOCK", 7)
    in_blocks = restore_long(signal, mask, smooth, 256, 32)
    np.testing.assert_allclose(in_blocks, whole, atol=1e-6)  # float32 sums in another order


def test_restoring_needs_a_whole_window():
    with pytest.raises(ValueError, match="1023 samples"):
        restore_long(np.zeros(1023), np.zeros(1023), identity, 1024, 64)


def test_principal_axes_match_scikit_learn():
    from sklearn.decomposition import PCA  # slow to load

    points = np.random.default_rng(0).normal(size=(200, 5)) * [5, 3, 1, 1, 0.5] + 7
    mean, axes, fractions = inference.principal_axes(points, 3)
    pca = PCA(3).fit(points)
    np.testing.assert_allclose(mean, pca.mean_)
    np.testing.assert_allclose(np.abs(axes), np.abs(pca.components_), atol=1e-9)
    np.testing.assert_allclose(fractions, pca.explained_variance_ratio_)
    mean, axes, _ = inference.principal_axes(points, 1, every=2)
    np.testing.assert_allclose(mean, pca.mean_)  # of all points
    expected = np.linalg.svd(points[::2] - mean)[2][:1]
    np.testing.assert_allclose(np.abs(axes), np.abs(expected), atol=1e-9)


def test_principal_axes_of_one_point_have_no_variance():
    mean, axes, fractions = inference.principal_axes(np.ones((1, 3)), 2)
    assert mean.shape == (3,) and axes.shape == (1, 3) and np.isnan(fractions).all()
