"""Find mains hum in a sound, and remove it by notch filters."""

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

MAINS = 50, 60  # Hz
HARMONICS = 20  # number of multiples that are looked for
STEADY = 0.8  # minimum 10% quantile of a tone's amplitude over time, relative to the median
LEAST = 0.01  # minimum amplitude, relative to the RMS of the sound
OFF = 0.5  # Hz; maximum distance of the lowest tone, because held notes are further off
BANDWIDTH = 1.0  # Hz, of each notch
MARGIN_SECONDS = 2  # the response of such a notch falls by 50 dB in this time


def find_hum(parts, rate):
    """Return the frequencies in Hz of the hum in parts (T,) of a sound, each of at least 2 s.

    Hum has a steady tone near a multiple of 50 or 60 Hz, and one at the first or second multiple.
    Each tone is measured in five windows of 1 s per part. Its phase gives its exact frequency.
    """
    parts = np.array([part[: 2 * rate] for part in parts if part.size >= 2 * rate])
    if len(parts) < 2:
        return np.zeros(0)
    cuts = [slice(first, first + rate) for first in range(0, rate + 1, rate // 4)]
    taper = np.hanning(rate) / (rate / 4)
    for mains in MAINS:
        frequencies = mains * np.arange(1, HARMONICS + 1)
        frequencies = frequencies[frequencies < rate / 2]
        waves = np.exp(-2j * np.pi / rate * np.outer(np.arange(2 * rate), frequencies))
        tones = np.stack([(taper * parts[:, cut]) @ waves[cut] for cut in cuts], 1)  # (P, 5, F)
        low, middle = np.quantile(np.abs(tones), [0.1, 0.5], axis=(0, 1))
        steady = (low > STEADY * middle) & (middle > LEAST * np.std(parts))
        # The turn in 0.25 s is less ambiguous, that in 0.5 s more exact.
        turns = [(t[:, 1:] * t[:, :-1].conj()).sum((0, 1)) for t in (tones, tones[:, ::2])]
        coarse, fine = np.angle(turns)
        if (steady & (np.abs(coarse) < OFF * np.pi / 2))[:2].any():
            return (frequencies + fine / np.pi)[steady]
    return np.zeros(0)


def without_hum(sound, frequencies, rate):
    """Remove steady tones from a sound: (T,) -> (T,)."""
    for frequency in frequencies:
        notch = scipy.signal.iirnotch(frequency, frequency / BANDWIDTH, rate)
        sound = scipy.signal.filtfilt(*notch, sound)
    return sound
