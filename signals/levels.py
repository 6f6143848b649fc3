"""Scale windows to a network's training level and back; measure how much of them it explains."""

from functools import partial

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

from audio_utils import RMS, TONE_AMPLITUDE
from inference import HOPS_PER_WINDOW, LEAST_OBSERVED

TONE_RMS = TONE_AMPLITUDE / 2**0.5 / RMS  # RMS of a training note, relative to note plus noise
BY_CHANCE = 10  # energy that a fit explains in white noise, in units of the noise's power
FREE = 5  # degrees of freedom that a fit uses up
LEAST_SEEN = 0.1  # minimum power of an output where observed, relative to all of it; limits factors
NEIGHBORS = 2 * HOPS_PER_WINDOW + 1  # windows at most one window away, in both directions
PEAK = 10  # minimum power of a partial, relative to the noise; exp(-10) is its probability in noise
BAND = 64  # frequencies whose median power gives the noise's power
LEAST_PARTIALS = 0.2  # minimum energy of a window's partials, relative to all of it
TINY = 1e-9  # RMS of silence, to avoid division by 0


def at_trained_level(reconstruct, rms):
    """Return a function like `reconstruct` for sounds of any level and offset.

    reconstruct(corrupted, observed) maps float32 windows (B, N) to windows. It was trained at the
    level `rms`. Its method `at_gains` makes it faster, see `files.dense_network`. The returned
    function requires windows in the order of `restore_long`.

    Each window is fitted by factor * output + offset (least squares over observed samples). The
    network runs three times: once per polarity to find the tone's polarity and level, then with the
    tone at its training level. Scaling a sound, also by -1, scales the result. A loud event affects
    only windows less than 0.2 s away.
    """
    at_gains = getattr(reconstruct, "at_gains", partial(_at_gains, reconstruct))

    def restore(corrupted, observed):
        count = np.maximum(observed.sum(1), 1)
        trusted = np.maximum(count - LEAST_OBSERVED * observed.shape[1], 0)
        mean = corrupted.sum(1) / count
        centered = corrupted - mean[:, None] * observed
        energy = np.vecdot(centered, centered)
        outputs = at_gains(centered, observed)

        def fitted(gain, offset):
            """Return the energy of the fit, offset, factor, noise and outputs at a gain."""
            drawn = outputs(gain, offset - mean)
            factor, fit_energy, noise, rest = _fit(centered, energy, observed, drawn, count)
            return fit_energy, _near(mean + rest, trusted / noise), factor, noise, drawn

        gain = np.float32(rms) / (np.sqrt(energy / count) + TINY)
        (upright, first, *_), (inverted, second, *_) = (fitted(s * gain, mean) for s in (1, -1))
        level = np.sqrt(np.maximum(upright, inverted) / count)
        gain = TONE_RMS * rms / (level + TINY)
        gain, offset = np.where(upright >= inverted, (gain, first), (-gain, second))
        fit_energy, offset, factor, noise, drawn = fitted(gain, offset)
        chance = np.minimum(BY_CHANCE * noise / np.maximum(fit_energy, TINY**2), 1)
        restored = (factor * (1 - chance**2))[:, None] * drawn  # 0 if noise can explain as much
        restored += offset[:, None]
        return restored

    return restore


def _at_gains(reconstruct, corrupted, observed):
    """Return the same outputs as `files.dense_network.DenseNetwork.at_gains`, computed plainly."""
    return lambda gain, offset: np.asarray(
        reconstruct(gain[:, None] * (corrupted - offset[:, None] * observed), observed), np.float32
    )


def _near(values, weights):
    """Return weighted means over neighboring windows, up to one window away: (B,), (B,) -> (B,).

    One window is too short to distinguish an offset from noise. The weights are inverse variances,
    so the offset in a rest is not taken from the notes beside it. If all weights are 0, the value
    stays.
    """
    total, weight = (
        scipy.ndimage.convolve1d(part.astype(float), np.ones(NEIGHBORS), mode="constant")
        for part in (weights * values, weights)
    )
    means = np.divide(total, weight, out=values.astype(float), where=weight > 0)
    return means.astype(values.dtype)


def _fit(centered, energy, observed, outputs, count):
    """Fit windows (B, N) of mean 0 and energy (B,) by factor * outputs + offset, where observed.

    Returns the factor, the energy that it explains, the power of the residual and the offset, (B,)
    each. The factor is negative where the network saw the window inverted.
    """
    total, product = np.vecdot(outputs, observed), np.vecdot(centered, outputs)
    output_energy = np.einsum("bn,bn,bn->b", outputs, outputs, observed) - total**2 / count
    least = LEAST_SEEN * np.vecdot(outputs, outputs) * count / outputs.shape[1]
    factor = product / np.maximum(np.maximum(output_energy, least), TINY**2)
    error = np.maximum(energy - factor * (2 * product - factor * output_energy), 0)
    noise = error / np.maximum(count - FREE, 1) + TINY**2
    return factor, factor**2 * output_energy, noise, -factor * total / count


def explained_fractions(sound, observed, output):
    """Return the fraction of the partials' energy that an output explains, in each window (B, N).

    Noise does not count, since it is not to be reproduced: a partial is a frequency with clearly
    more power than those nearby. Windows without clear partials are left out. The mean over windows
    does not depend on levels, so one loud event changes little.
    """
    count = np.maximum(observed.sum(1, keepdims=True, dtype=np.float32), 1)
    parts = (part - part.sum(1, keepdims=True) / count for part in (sound, sound - output))
    taper = observed * np.hanning(sound.shape[1]).astype(np.float32)
    powers = [np.abs(np.fft.rfft(part * taper)[:, 1:]) ** 2 for part in parts]
    before, after = map(_partials, powers)
    clear = before > LEAST_PARTIALS * powers[0].sum(1) + TINY**2
    return np.clip(1 - after[clear] / before[clear], 0, 1)


def _partials(power):
    """Return the total power of the partials in spectra: (B, F) -> (B,)."""
    total = 0
    for band in np.array_split(power, max(1, power.shape[1] // BAND), axis=1):
        median = np.sort(band, axis=1)[:, band.shape[1] // 2, None]  # faster than np.median
        noise = median / np.log(2)  # exponentially distributed
        total += np.where(band > PEAK * noise, band - noise, 0).sum(1)
    return total
