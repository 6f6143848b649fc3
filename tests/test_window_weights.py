"""Confidence weights of windows, compared with the rule written out sample by sample."""

import numpy as np
import pytest

import inference

WINDOW, HOP = 64, 8


def by_the_rule(corrupted, mask, reconstruct):
    """Restore with weights Hann x (error of the window x local error)^-4.

    Errors are mean squares over observed samples, the local one over the surrounding eighth of a
    window. If nothing is observed there, the error of the window counts. If less than an eighth of
    a window is observed, it does not count.
    """
    starts = sorted({*range(0, corrupted.size - WINDOW, HOP), corrupted.size - WINDOW})
    total, weights = np.zeros(corrupted.size), np.zeros(corrupted.size)
    near = WINDOW // 8
    for start in starts:
        part = slice(start, start + WINDOW)
        window, observed = corrupted[part].astype(float), 1 - mask[part]
        inputs = window[None].astype(np.float32), observed[None].astype(np.float32)
        output = reconstruct(*inputs)[0].astype(float)
        error = (window - output) ** 2 * observed
        whole = error.sum() / observed.sum() if observed.sum() >= WINDOW / 8 else 1e36
        for n in range(WINDOW):
            around = slice(max(0, n - near // 2), n - near // 2 + near)
            local_error, count = error[around].sum(), observed[around].sum()
            local = (local_error / near + whole / near) / (count / near + 1 / near)
            taper = np.sin(np.pi * (n + 1) / (WINDOW + 1)) ** 2
            weight = taper * (whole * local) ** -4
            total[start + n] += weight * output[n]
            weights[start + n] += weight
    return total / weights


@pytest.mark.parametrize("samples", [64, 65, 300, 511])
def test_windows_are_weighted_by_the_rule(samples):
    rng = np.random.default_rng(samples)
    clean = np.sin(np.arange(samples) / 5) + 0.3 * rng.standard_normal(samples)
    mask = (rng.random(samples) < 0.2).astype(float)
    mask[100:190] = 1  # windows here observe almost nothing
    corrupted = clean * (1 - mask)
    mixing = np.eye(WINDOW) * 0.7 + 0.05 * rng.standard_normal((WINDOW, WINDOW))

    def reconstruct(windows, observed):
        return (windows @ mixing + 0.1).astype(np.float32)

    with np.errstate(divide="raise", invalid="raise"):  # NumPy's warnings would be printed
        restored = inference.restore_long(corrupted, mask, reconstruct, WINDOW, HOP)
    expected = by_the_rule(corrupted, mask, reconstruct)
    np.testing.assert_allclose(restored, expected, rtol=1e-3, atol=1e-4)


def test_blind_and_locally_wrong_windows_do_not_count():
    clean = np.cos(np.arange(512) / 7)
    mask = np.zeros(512)
    mask[200:280] = 1  # longer than a window: some observe nothing

    def reconstruct(windows, observed):
        """Wrong for windows that observe nothing, and in the second half if they start with 0."""
        outputs = np.array(windows)
        for window, output in zip(windows, outputs):
            output[:] = 5 if not window.any() else window
            if window[0] == 0:
                output[WINDOW // 2 :] += 1
        return outputs

    restored = inference.restore_long(clean * (1 - mask), mask, reconstruct, WINDOW, HOP)
    np.testing.assert_allclose(restored[mask == 0], clean[mask == 0], atol=1e-3)
    assert np.abs(restored).max() < 1.1
