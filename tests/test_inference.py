"""Long sounds restored window by window: nothing is lost, and who is wrong is not trusted."""

import numpy as np
import pytest
import scipy.ndimage

import inference
from inference import restore_long


@pytest.mark.parametrize("samples", [1024, 1025, 5000, 8192])
def test_restoring_with_a_model_that_returns_its_input_returns_the_input_to_its_ends(samples):
    signal = np.random.default_rng(0).standard_normal(samples)
    restored = restore_long(signal, np.zeros(samples), lambda windows, _: windows, 1024, 64)
    np.testing.assert_allclose(restored, signal, atol=1e-6)


def test_restoring_trusts_the_windows_that_explain_what_they_are_shown():
    # A model of constants only. The input changes from 1 to -1: windows across the step are wrong everywhere.
    signal = np.concatenate([np.ones(4000), -np.ones(4000)])
    mask = np.zeros(8000)
    mask[2000:2200] = 1

    def constants(windows):
        return np.broadcast_to(np.median(windows, axis=1, keepdims=True), windows.shape)

    restored = restore_long(signal * (1 - mask), mask, constants, 1024, 64)
    assert np.abs(restored - signal)[:3900].max() < 1e-3  # the gap among them
    assert np.abs(restored - signal)[4100:].max() < 1e-3


def test_restoring_block_after_block_is_restoring_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    signal, mask = rng.standard_normal(9001), (rng.random(9001) < 0.2).astype(float)

    def smooth(windows):
        return scipy.ndimage.uniform_filter1d(windows, 9, axis=1)

    whole = restore_long(signal, mask, smooth, 256, 32)
    monkeypatch.setattr(inference, "WINDOWS_A_BLOCK", 7)
    np.testing.assert_allclose(
        restore_long(signal, mask, smooth, 256, 32), whole, atol=1e-6
    )  # float32, summed elsewhere


def test_restoring_needs_a_whole_window():
    with pytest.raises(ValueError, match="1023 samples"):
        restore_long(np.zeros(1023), np.zeros(1023), lambda windows, _: windows, 1024, 64)
