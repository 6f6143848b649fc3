"""Scale windows of a sound to a network's training level, and scale its outputs back."""

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

from audio_utils import RMS, TONE_AMPLITUDE
from inference import HOPS_PER_WINDOW

TONE_RMS = TONE_AMPLITUDE / np.sqrt(2) / RMS  # RMS of a training note, relative to note plus noise
MOST_RMS = 2.0  # maximum RMS of an input, relative to training; limits the gain of noise in rests
BY_CHANCE = 10  # energy that a fit explains in white noise, in units of the noise's power
FREE = 5  # degrees of freedom that a fit uses up
LEAST_SEEN = 0.1  # minimum power of an output where observed, relative to all of it; limits factors
TINY = 1e-9  # RMS of silence, to avoid division by 0


def at_trained_level(reconstruct, rms):
    """Return a function like `reconstruct` for sounds of any level and offset.

    reconstruct(corrupted, observed) maps float32 windows (B, N) to windows. It was trained at the
    level `rms`. The returned function requires windows in the order of `restore_long_blocks`.

    Each window is fitted by factor * output + offset (least squares over observed samples). A first
    output gives the tone's level. The input of the second has the tone at its training level.
    Scaling a sound scales the result. A loud event affects only neighboring windows.
    """

    def restore(corrupted, observed):
        count = np.maximum(observed.sum(1), 1)
        total = corrupted.sum(1)
        offset = total / count
        gain = rms / _rms(_without(offset, corrupted, observed), count)
        most = MOST_RMS * gain
        for _ in range(2):
            centered = _without(offset, corrupted, observed)
            shown = (np.copysign(gain, _sign(centered))[:, None] * centered).astype(np.float32)
            outputs = np.asarray(reconstruct(shown, observed), np.float32)
            factor, energy, noise = _fit(centered, observed, outputs, count)
            gain = np.minimum(TONE_RMS * rms / (np.sqrt(energy / count) + TINY), most)
            offset = _near(total - factor * _dot(outputs, observed)) / _near(count)
        chance = np.minimum(BY_CHANCE * noise / np.maximum(energy, TINY**2), 1)
        return (factor * (1 - chance**2))[:, None] * outputs + offset[:, None]

    return restore


def _dot(a, b):
    """Return the inner products of windows: (B, N), (B, N) -> (B,)."""
    return np.einsum("bn,bn->b", a, b)


def _without(offset, corrupted, observed):
    return corrupted - offset[:, None] * observed


def _rms(windows, count):
    return np.sqrt(_dot(windows, windows) / count) + TINY


def _sign(windows):
    """Return polarities, so that an inverted input gives an inverted output: (B, N) -> (B,)."""
    return windows @ np.linspace(-1, 1, windows.shape[1], dtype=np.float32)


def _near(values):
    """Return the means over neighboring windows, up to one window away: (B,) -> (B,).

    One window is too short to distinguish an offset from noise.
    """
    return scipy.ndimage.uniform_filter1d(values, 2 * HOPS_PER_WINDOW + 1, mode="constant")


def _fit(centered, observed, outputs, count):
    """Fit centered windows (B, N) by factor * outputs + offset, over their observed samples.

    Returns the factor, the energy that it explains, and the power of the residual, (B,) each. The
    factor is negative where the network saw the window inverted.
    """
    seen = outputs * observed
    x, y = centered.sum(1), seen.sum(1)
    own, both, theirs = (
        _dot(a, b) - c * d / count
        for a, b, c, d in [(centered, centered, x, x), (centered, seen, x, y), (seen, seen, y, y)]
    )
    least = LEAST_SEEN * _dot(outputs, outputs) * count / outputs.shape[1]
    factor = both / np.maximum(np.maximum(theirs, least), TINY**2)
    error = np.maximum(own - factor * (2 * both - factor * theirs), 0)
    return factor, factor**2 * theirs, error / np.maximum(count - FREE, 1)
