"""Restoring a long sound from windows, against the rule written out window by window and sample by sample."""

import numpy as np
import pytest

import inference

WINDOW, HOP = 64, 8


def by_the_rule(corrupted, mask, reconstruct):
    """Every sample the mean of all windows over it, weighted by Hann x (error of the window x error near)^-4.

    Errors are mean squares over observed samples; near: the eighth of a window around. Where nothing near is observed
    the error of the window counts, and a window of which less than an eighth is observed counts as all wrong.
    """
    starts = sorted({*range(0, corrupted.size - WINDOW, HOP), corrupted.size - WINDOW})
    total, weights = np.zeros(corrupted.size), np.zeros(corrupted.size)
    near = WINDOW // 8
    for start in starts:
        part = slice(start, start + WINDOW)
        given, observed = corrupted[part].astype(float), 1 - mask[part]
        made = reconstruct(given[None].astype(np.float32))[0].astype(float)
        error = (given - made) ** 2 * observed
        whole = error.sum() / observed.sum() if observed.sum() >= WINDOW / 8 else 1e3
        for n in range(WINDOW):
            around = slice(max(0, n - near // 2), n - near // 2 + near)
            local = (error[around].sum() / near + whole / near) / (
                observed[around].sum() / near + 1 / near
            )
            taper = np.sin(np.pi * (n + 1) / (WINDOW + 1)) ** 2
            weight = taper * np.clip(whole * local, 1e-8, 1e8) ** -4
            total[start + n] += weight * made[n]
            weights[start + n] += weight
    return total / weights


@pytest.mark.parametrize("samples", [64, 65, 300, 511])
def test_windows_are_weighted_as_the_rule_says(samples):
    rng = np.random.default_rng(samples)
    clean = np.sin(np.arange(samples) / 5) + 0.3 * rng.standard_normal(samples)
    mask = (rng.random(samples) < 0.2).astype(float)
    mask[100:190] = 1  # windows here observe next to nothing
    corrupted = clean * (1 - mask)
    mixing = np.eye(WINDOW) * 0.7 + 0.05 * rng.standard_normal((WINDOW, WINDOW))

    def reconstruct(windows):
        return (windows @ mixing + 0.1).astype(np.float32)

    restored = inference.restore_long(corrupted, mask, reconstruct, WINDOW, HOP)
    np.testing.assert_allclose(
        restored, by_the_rule(corrupted, mask, reconstruct), rtol=1e-3, atol=1e-4
    )


def test_a_window_that_sees_next_to_nothing_and_one_that_is_wrong_here_do_not_count():
    """Of windows that agree with what is observed and others that do not, the former decide."""
    clean = np.cos(np.arange(512) / 7)
    mask = np.zeros(512)
    mask[200:280] = 1  # longer than a window: some see nothing at all

    def reconstruct(windows):
        """Right, but for windows that see nothing, and for the second half of those that begin with a 0."""
        made = np.array(windows)
        for window, output in zip(windows, made):
            output[:] = 5 if not window.any() else window
            if window[0] == 0:
                output[WINDOW // 2 :] += 1
        return made

    restored = inference.restore_long(clean * (1 - mask), mask, reconstruct, WINDOW, HOP)
    np.testing.assert_allclose(restored[mask == 0], clean[mask == 0], atol=1e-3)
    assert np.abs(restored).max() < 1.1
