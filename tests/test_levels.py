"""Levels of windows, with a stand-in for the network that projects onto two tones."""

import numpy as np

from signals.levels import at_trained_level

TIME = np.arange(512) / 16000
ANGLES = 2 * np.pi * np.outer([250.0, 500.0], TIME)  # whole periods, so the basis is orthogonal
BASIS = np.concatenate([np.sin(ANGLES), np.cos(ANGLES)])


def projected(windows, observed):
    return (windows @ BASIS.T @ BASIS * 2 / TIME.size).astype(np.float32)


def test_noise_alone_gives_silence_and_a_tone_stays():
    """The projection of white noise has 4 of its 512 dimensions, 9% of its RMS.

    By chance a few windows have so much of it that they pass for tones.
    """
    noise = np.random.default_rng(0).standard_normal((64, TIME.size)).astype(np.float32)
    noise -= noise.mean(1, keepdims=True)
    observed, restore = np.ones_like(noise), at_trained_level(projected, 0.4)
    assert projected(noise, observed).std() > 0.07
    assert np.mean(restore(noise, observed).std(1) < 1e-3) > 0.85
    tones = np.tile(0.003 * np.sin(ANGLES[1]), (64, 1)).astype(np.float32)
    np.testing.assert_allclose(restore(tones, observed), tones, atol=1e-5)
