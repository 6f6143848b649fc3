"""Estimate steady noise in recordings with gaps, and remove it by the sound's posterior mean.

A network's reconstruction shows the frequencies of the sound and fills its gaps. The observed
samples hold details that the network's bottleneck loses. Both together beat either alone.
"""

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

from audio_utils import runs
from signals.fill_gaps import fill, mixture_weights
from signals.gaps import inside

FRAME_SECONDS = 0.128  # duration of a frame of the spectrogram
FRAMES_PER_SAMPLE = 4  # number of overlapping frames that contain a sample
QUIET_QUANTILE = 0.1  # fraction of frames assumed to contain only noise, at each frequency
SMOOTHED_BINS = 31  # width of the running median over frequency; wider than a steady partial
MIN_FRACTION_OBSERVED = 0.3  # noise is estimated only from frames with at least this fraction
SURE_EXCESS = 12  # minimum excess, relative to the noise; exp(-13) is its probability in pure noise
LIKELY_EXCESS = 3  # the same before gaps are filled; losing partials is worse than keeping noise
NO_NOISE_DB = -30.0  # minimum noise to remove, relative to the sound; less may be omitted detail
ARTIFICIAL_GAPS = 16  # maximum number; their errors determine the mixture weights
ARTIFICIAL_SPACING = 16  # distance between artificial gaps, in gap lengths
SHARPNESS = 2  # a candidate's weight is its inverse error to this power


def transform(rate):
    """Return a scipy.signal.ShortTimeFFT with Hann frames for sounds at `rate` Hz."""
    hop = max(1, round(FRAME_SECONDS * rate / FRAMES_PER_SAMPLE))
    taper = scipy.signal.windows.hann(hop * FRAMES_PER_SAMPLE, sym=False)
    return scipy.signal.ShortTimeFFT(taper, hop, rate)


def quiet_power(frames, observed, reconstruction, mask):
    """Return an upper bound (F, K) on the noise's power at each frequency in each frame.

    frames: from `transform`. The signals (T,) are the noisy sound, the network's output and a mask,
    1 where missing. The bound is the power of the sound or of the network's residual, whichever is
    less, scaled up for the missing samples. Frames with too few observed samples get nan.
    """
    square = frames.win**2 / np.sum(frames.win**2)
    energy = scipy.signal.ShortTimeFFT(square, frames.hop, frames.fs)
    fraction = energy.stft(1.0 - mask)[0].real  # at frequency 0: observed fraction of each frame
    sound = (mask == 0) * observed
    residual = sound - (mask == 0) * reconstruction
    power = np.minimum(*(np.abs(frames.stft(part)) ** 2 for part in (sound, residual)))
    scaled = power / np.maximum(fraction, MIN_FRACTION_OBSERVED)
    return np.where(fraction >= MIN_FRACTION_OBSERVED, scaled, np.nan)


def noise_power(quiet):
    """Estimate the power of steady noise at each frequency from `quiet_power`: (F, K) -> (F,).

    The power of noise is exponentially distributed, so its quantile q is -log(1 - q) times its
    mean. A median over neighboring frequencies removes partials that never stop.
    """
    known = quiet[:, ~np.isnan(quiet).all(0)]
    if not known.size:
        return np.zeros(len(quiet))
    power = np.quantile(known, QUIET_QUANTILE, axis=1) / -np.log1p(-QUIET_QUANTILE)
    return scipy.ndimage.median_filter(power, SMOOTHED_BINS, mode="mirror")


def relative_db(noise, sound, frames):
    """Return the level of noise with power (F,) per frame, relative to a sound (T,), in dB."""
    power = noise[0] + noise[-1] + 2 * noise[1:-1].sum()
    scale = frames.m_num * np.sum(frames.win**2)
    return 10 * np.log10(max(power, 1e-20) / (scale * max(np.mean(sound**2), 1e-20)))


def estimated(frames, observed, mask, reconstruction):
    """Estimate a sound's noise. Returns its power (F,), and its level in dB relative to the sound.

    The power is 0 if the level is at most NO_NOISE_DB. The arguments are those of `quiet_power`.
    """
    power = noise_power(quiet_power(frames, observed, reconstruction, mask))
    level_db = relative_db(power, observed[mask == 0], frames)
    return power if level_db > NO_NOISE_DB else np.zeros_like(power), level_db


def wiener(frames, sound, reconstruction, noise, sure=SURE_EXCESS):
    """Return the posterior mean of a sound in noise of power (F,): (T,) -> (T,).

    Wiener's gain is S / (S + noise) at each frequency in each frame. S is the power of the
    network's reconstruction (T,). If the power of the sound exceeds the noise by more than `sure`
    times the noise, S is at least this excess.
    """
    spectrum = frames.stft(sound)
    power = np.abs(frames.stft(reconstruction)) ** 2
    noise = np.maximum(noise, 1e-20)[:, None]
    excess = np.abs(spectrum) ** 2 - noise
    power = np.where(excess > sure * noise, np.maximum(power, excess), power)
    return frames.istft(spectrum * (power / (power + noise)), k1=len(sound))


def classic_wiener(frames, sound, noise):
    """Apply a Wiener filter without a network: (T,) -> (T,).

    The noise has power (F,). The gain is 1 - 2 noise / |spectrum|^2, or 0 if this is negative.
    """
    spectrum = frames.stft(sound)
    ratio = noise[:, None] / np.maximum(np.abs(spectrum) ** 2, 1e-20)
    return frames.istft(spectrum * np.maximum(0, 1 - 2 * ratio), k1=len(sound))


def candidates(frames, observed, mask, reconstruction, noise):
    """Return three estimates (3, M) of the M missing samples, after a first noise reduction.

    1. The sound, continued by autoregression. 2. The network's reconstruction. 3. The
    reconstruction plus its residual, where the residual is continued by autoregression.
    """
    missing = mask == 1
    drawn = reconstruction[missing]
    sound = np.where(missing, reconstruction, observed)
    if noise.any():
        sound = wiener(frames, sound, reconstruction, noise, LIKELY_EXCESS)
    rate, gaps = round(frames.fs), runs(mask)
    continued = fill(sound, gaps, rate, default=reconstruction)[missing]
    residual = fill(sound - reconstruction, gaps, rate)[missing]
    return np.stack([continued, drawn, drawn + residual])


def artificial_gaps(missing, samples, size):
    """Choose at most ARTIFICIAL_GAPS observed stretches to hide, evenly spread. Returns (n, 2).

    missing: sorted stretches (m, 2) of a sound of `samples` samples. An artificial gap has `size`
    samples, but at most a third of the observed samples between two missing stretches.
    """
    rooms = np.column_stack([np.append(0, missing[:, 1]), np.append(missing[:, 0], samples)])
    places = []  # (middle, size) of each possible gap
    for first, end in rooms:
        count = max(1, (end - first) // (ARTIFICIAL_SPACING * size))
        middles = first + (np.arange(count) + 0.5) * (end - first) / count
        places += [(int(middle), min(size, (end - first) // 3)) for middle in middles]
    chosen = np.unique(np.linspace(0, len(places) - 1, ARTIFICIAL_GAPS).astype(int))
    middles, sizes = np.array(places)[chosen].T
    first = middles - sizes // 2
    return np.stack([first, first + sizes], 1)[sizes > 0]


def calibrate(observed, mask, rate, restore):
    """Estimate a sound's noise, and weights for the mixture of `candidates`.

    restore(observed, mask) returns the network's reconstruction; all are (T,). Returns the power of
    the noise (F,), its level in dB relative to the sound, and the weights (3,). The weights sum to
    1 and come from the errors of the candidates in artificial gaps.
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
    """Fill the gaps of a sound and remove its noise: observed, mask, reconstruction (T,) -> (T,).

    Gaps get the mixture of `candidates` with `weights` (3,). Then noise of power (F,) is removed.
    """
    frames, filled = transform(rate), np.array(observed, float)
    if mask.any():
        filled[mask == 1] = weights @ candidates(frames, observed, mask, reconstruction, noise)
    return wiener(frames, filled, reconstruction, noise) if noise.any() else filled


def denoise_long(observed, mask, reconstruction, rate, restore=None):
    """Fill the gaps of a whole sound, and estimate and remove its noise. Returns (T,).

    observed, mask, reconstruction: (T,). restore(observed, mask) returns the reconstruction for
    artificial gaps. Without `restore`, the network alone fills the gaps.
    """
    if restore:
        power, _, weights = calibrate(observed, mask, rate, restore)
        return denoise(observed, mask, reconstruction, rate, power, weights)
    frames = transform(rate)
    power, _ = estimated(frames, observed, mask, reconstruction)
    filled = np.where(mask == 1, reconstruction, observed)
    return wiener(frames, filled, reconstruction, power)
