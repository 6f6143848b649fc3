"""Steady noise in chopped recordings: its power spectrum, and the posterior mean of the sound.

A network's reconstruction shows where a sound is and what is missing in its gaps. The phases of the
observed samples hold what the bottleneck loses. Both together beat either alone.
"""

import numpy as np
import scipy  # lazy: its parts load at first use, so that --help needs none of them

from audio_utils import runs
from signals.fill_gaps import fill, mixture_weights
from signals.gaps import inside

FRAME_SECONDS = 0.128  # of the spectra
FRAMES_PER_SAMPLE = 4  # how many frames overlap at each sample
QUIET_QUANTILE = 0.1  # over frames: at each frequency, this fraction holds only noise
SMOOTHED_BINS = 31  # frequencies in the running median, more than a steady partial covers
MIN_FRACTION_OBSERVED = 0.3  # of a frame, for an estimate of the noise from it
SURE_EXCESS = 12  # times the noise's power; noise itself reaches it with probability exp(-12)
LIKELY_EXCESS = 3  # used before gaps are filled: keeping noise is better than losing partials
NO_NOISE_DB = -30.0  # relative to the sound; less may be detail that the network leaves out
ARTIFICIAL_GAPS = 16  # at most; the mixture weights come from errors in them
ARTIFICIAL_SPACING = 16  # gap lengths from one artificial gap to the next
SHARPNESS = 2  # power of the inverse error in the mixture of candidates


def transform(rate):
    """Short-time Fourier transform with Hann frames at `rate` Hz: a scipy.signal.ShortTimeFFT."""
    hop = max(1, round(FRAME_SECONDS * rate / FRAMES_PER_SAMPLE))
    taper = scipy.signal.windows.hann(hop * FRAMES_PER_SAMPLE, sym=False)
    return scipy.signal.ShortTimeFFT(taper, hop, rate)


def quiet_power(frames, observed, reconstruction, mask):
    """Upper bound on the noise's power per frequency and frame: (F, K); nan if mostly missing.

    frames: from `transform`. observed, reconstruction, mask (T,): the noisy sound, the network's
    output, 1 where missing. The bound is the smaller of the power of the sound and that of the
    network's residual. Both are scaled up to a frame without gaps.
    """
    square = frames.win**2 / np.sum(frames.win**2)
    energy = scipy.signal.ShortTimeFFT(square, frames.hop, frames.fs)
    fraction = energy.stft(1.0 - mask)[0].real  # at frequency 0: observed part of the window
    sound = (mask == 0) * observed
    residual = sound - (mask == 0) * reconstruction
    power = np.minimum(*(np.abs(frames.stft(part)) ** 2 for part in (sound, residual)))
    scaled = power / np.maximum(fraction, MIN_FRACTION_OBSERVED)
    return np.where(fraction >= MIN_FRACTION_OBSERVED, scaled, np.nan)


def noise_power(quiet):
    """Power of stationary noise per frame at each frequency: (F, K) of `quiet_power` -> (F,).

    The power of noise is exponentially distributed: its quantile q is -log(1 - q) times its mean.
    The median over neighboring frequencies removes partials that sound all the time.
    """
    known = quiet[:, ~np.isnan(quiet).all(0)]
    if not known.size:
        return np.zeros(len(quiet))
    power = np.quantile(known, QUIET_QUANTILE, axis=1) / -np.log1p(-QUIET_QUANTILE)
    return scipy.ndimage.median_filter(power, SMOOTHED_BINS, mode="mirror")


def below_db(noise, sound, frames):
    """Level of noise of power (F,) per frame of `transform`, relative to a sound (T,), in dB."""
    power = noise[0] + noise[-1] + 2 * noise[1:-1].sum()
    scale = frames.m_num * np.sum(frames.win**2)
    return 10 * np.log10(max(power, 1e-20) / (scale * max(np.mean(sound**2), 1e-20)))


def estimated(frames, observed, mask, reconstruction):
    """Power of a sound's noise (F,), 0 below NO_NOISE_DB, and its level relative to the sound, dB.

    Arguments as for `quiet_power`.
    """
    power = noise_power(quiet_power(frames, observed, reconstruction, mask))
    level_db = below_db(power, observed[mask == 0], frames)
    return power if level_db > NO_NOISE_DB else np.zeros_like(power), level_db


def wiener(frames, sound, reconstruction, noise, sure=SURE_EXCESS):
    """Posterior mean of a sound in noise of known power (F,): (T,) -> (T,).

    Wiener's gain S / (S + noise) for each frequency and frame. S is the power of the network's
    reconstruction (T,). Where the sound has more than `sure` times the noise's power in excess of
    it, S is at least this excess.
    """
    spectrum = frames.stft(sound)
    power = np.abs(frames.stft(reconstruction)) ** 2
    noise = np.maximum(noise, 1e-20)[:, None]
    excess = np.abs(spectrum) ** 2 - noise
    power = np.where(excess > sure * noise, np.maximum(power, excess), power)
    return frames.istft(spectrum * (power / (power + noise)), k1=len(sound))


def classic_wiener(frames, sound, noise):
    """Wiener filter without a network: (T,) -> (T,).

    The gain is 1 - 2 noise / |F|^2, at least 0, with the noisy spectrum F and noise power (F,).
    """
    spectrum = frames.stft(sound)
    ratio = noise[:, None] / np.maximum(np.abs(spectrum) ** 2, 1e-20)
    return frames.istft(spectrum * np.maximum(0, 1 - 2 * ratio), k1=len(sound))


def candidates(frames, observed, mask, reconstruction, noise):
    """Three estimates of the M missing samples, after a first noise reduction: (3, M).

    The sound continued by autoregression; the network's reconstruction; the reconstruction plus
    its residual, continued by autoregression.
    """
    missing = mask == 1
    drawn = reconstruction[missing]
    sound = np.where(missing, reconstruction, observed)
    if noise.any():
        sound = wiener(frames, sound, reconstruction, noise, LIKELY_EXCESS)
    rate, gaps = round(frames.fs), runs(mask)
    parts = sound, sound - reconstruction
    continued, residual = (fill(part, gaps, rate)[missing] for part in parts)
    continued = np.where(continued == 0, drawn, continued)  # gaps that `fill` cannot fill
    return np.stack([continued, drawn, drawn + residual])


def artificial_gaps(missing, samples, size):
    """Observed stretches to hide on purpose, evenly spread: (n, 2), n <= ARTIFICIAL_GAPS.

    missing: sorted stretches (m, 2) of a sound of `samples` samples. An artificial gap has `size`
    samples, but at most a third of what is observed between two missing stretches.
    """
    rooms = np.column_stack([np.append(0, missing[:, 1]), np.append(missing[:, 0], samples)])
    places = []  # middle and size
    for first, end in rooms:
        count = max(1, (end - first) // (ARTIFICIAL_SPACING * size))
        middles = first + (np.arange(count) + 0.5) * (end - first) / count
        places += [(int(middle), min(size, (end - first) // 3)) for middle in middles]
    chosen = np.unique(np.linspace(0, len(places) - 1, ARTIFICIAL_GAPS).astype(int))
    middles, sizes = np.array(places)[chosen].T
    first = middles - sizes // 2
    return np.stack([first, first + sizes], 1)[sizes > 0]


def calibrate(observed, mask, rate, restore):
    """Power of a sound's noise (F,), its level relative to the sound in dB, mixture weights (3,).

    observed, mask (T,). restore(observed, mask): the network's reconstruction, (T,). The weights
    of `candidates` sum to 1 and come from their errors in artificial gaps.
    """
    frames, reconstruction = transform(rate), restore(observed, mask)
    noise, level_db = estimated(frames, observed, mask, reconstruction)
    gaps, artificial = runs(mask), np.zeros(mask.size, bool)
    if len(gaps):
        size = int(np.median(np.ptp(gaps, axis=1)))
        artificial = inside(artificial_gaps(gaps, mask.size, size), 0, mask.size)
    if not artificial.any():
        return noise, level_db, np.array([0.0, 1.0, 0.0])
    both = np.maximum(mask, artificial)
    reconstruction = restore(np.where(both == 1, 0, observed), both)
    found = candidates(frames, observed, both, reconstruction, noise)[:, artificial[both == 1]]
    errors = np.maximum(((found - observed[artificial]) ** 2).mean(1), 1e-20)
    weights = mixture_weights(errors, SHARPNESS)
    return noise, level_db, weights / weights.sum()


def denoise(observed, mask, reconstruction, rate, noise, weights):
    """Posterior mean of a sound with gaps and noise: observed, mask, reconstruction (T,) -> (T,).

    Gaps are filled with the mixture of `candidates` by `weights` (3,). Then noise of power (F,) is
    removed, if there is any.
    """
    frames, filled = transform(rate), np.array(observed, float)
    if mask.any():
        filled[mask == 1] = weights @ candidates(frames, observed, mask, reconstruction, noise)
    return wiener(frames, filled, reconstruction, noise) if noise.any() else filled


def denoise_long(observed, mask, reconstruction, rate, restore=None):
    """Posterior mean of a whole sound, whose noise is estimated: (T,), (T,), (T,) -> (T,).

    restore(observed, mask) -> reconstruction, for artificial gaps. Without it, gaps are filled by
    the network alone.
    """
    if restore:
        power, _, weights = calibrate(observed, mask, rate, restore)
        return denoise(observed, mask, reconstruction, rate, power, weights)
    frames = transform(rate)
    power, _ = estimated(frames, observed, mask, reconstruction)
    filled = np.where(mask == 1, reconstruction, observed)
    return wiener(frames, filled, reconstruction, power)
