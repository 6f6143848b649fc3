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
FLOOR_QUANTILE = 0.25  # fraction of frequencies assumed to contain only noise, in each frame
LOUD_QUANTILE = 0.8  # fraction of frames that may be silent or quiet; the rest is no loud event
LEVEL_FRAMES = 37  # 1.2 s; duration over which the level of noise is steady
LEVEL_PERCENTILE = 25  # of the frames' levels; the others may hold consonants and attacks
STEADY_DB = 2  # maximum median change of the level of noise from a frame to the next
WEAK = 1e-4  # frequencies with less noise, relative to the strongest, show no level
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


def smooth(spectrum):
    """Remove the partials that never stop from a spectrum, by a median over frequency: (F,)."""
    return scipy.ndimage.median_filter(spectrum, SMOOTHED_BINS, mode="mirror")


def gains(quiet, spectrum):
    """Return the level of noise in each frame, relative to noise of the given spectrum.

    Shapes are (F, K), (F,) -> (K,). `quiet` is from `quiet_power`; unknown frames stay nan.

    The power of noise is exponentially distributed, so its quantile q is -log(1 - q) times its
    mean. Frequencies with partials exceed the quantile, which is taken over all frequencies.
    """
    bins = spectrum > WEAK * spectrum.max()
    ratio = quiet[bins] / spectrum[bins, None]
    return np.quantile(ratio, FLOOR_QUANTILE, axis=0) / -np.log1p(-FLOOR_QUANTILE)


def least_noise(frames, quiet, sound_power):
    """Estimate the spectrum of the noise, scaled to NO_NOISE_DB below the sound: (F, K) -> (F,).

    Only frames with more noise than this count. Others are silent or clean, and show nothing of the
    noise elsewhere. Each frame is divided by its level, so the noise may vary.
    """
    known = quiet[:, ~np.isnan(quiet).any(0)]
    if not known.any() or sound_power <= 0:
        return np.zeros(len(quiet))
    least = 10 ** (NO_NOISE_DB / 10) * sound_power
    spectrum = smooth(np.quantile(known, LOUD_QUANTILE, axis=1)) + 1e-20
    spectrum *= least / mean_square(frames, spectrum)
    gain = gains(known, spectrum)
    if (gain > 1).any():
        steady = known[:, gain > 1] / gain[gain > 1]
        spectrum = smooth(np.quantile(steady, QUIET_QUANTILE, axis=1)) + 1e-20
    return spectrum * (least / mean_square(frames, spectrum))


def noise_power(quiet, spectrum):
    """Return the noise's power in each frame: (F, K), (F,) -> (F, K), 0 where it is negligible.

    spectrum: from `least_noise`. The level is a running quantile over the frames with noise, so
    neither a short loud event nor silence matters. A level that changes from frame to frame is that
    of the sound.
    """
    gain = gains(quiet, spectrum) if spectrum.any() else np.zeros(quiet.shape[1])
    noisy = np.flatnonzero(gain > 1)
    if noisy.size < min(LEVEL_FRAMES, gain.size) / 2:
        return np.zeros_like(quiet)
    level_db = 10 * np.log10(gain + 1e-20)
    beyond = np.full(FRAMES_PER_SAMPLE, np.nan)
    step = np.abs(level_db[beyond.size :] - level_db[: -beyond.size])
    change = np.fmin(np.append(step, beyond), np.append(beyond, step))  # to the more similar frame
    change = scipy.ndimage.median_filter(np.nan_to_num(change[noisy]), 2 * LEVEL_FRAMES)
    level = scipy.ndimage.percentile_filter(gain[noisy], LEVEL_PERCENTILE, LEVEL_FRAMES)
    level = np.where(change < STEADY_DB, level, 0)
    gain = np.fmin(gain, np.interp(np.arange(gain.size), noisy, level))
    return spectrum[:, None] * np.where(gain > 1, gain, 0)


def loud_power(sound, hop):
    """Return the mean square of the loud parts of a sound (T,)."""
    hops = np.resize(sound, (-(-sound.size // hop), hop))
    return np.quantile((hops**2).mean(1), LOUD_QUANTILE)


def typical_size(gaps):
    """Return the median length of gaps (n, 2), 0 if there are none."""
    return int(np.median(np.ptp(gaps, axis=1))) if len(gaps) else 0


def mean_square(frames, power):
    """Return the mean square of noise of power (F,) per frame."""
    return (power[0] + power[-1] + 2 * power[1:-1].sum()) / (frames.m_num * np.sum(frames.win**2))


def wiener(frames, sound, reconstruction, noise, sure=SURE_EXCESS):
    """Return the posterior mean of a sound in noise of power (F, K) or (F, 1): (T,) -> (T,).

    Wiener's gain is S / (S + noise) at each frequency in each frame. S is the power of the
    network's reconstruction (T,). If the power of the sound exceeds the noise by more than `sure`
    times the noise, S is at least this excess.
    """
    spectrum = frames.stft(sound)
    power = np.abs(frames.stft(reconstruction)) ** 2
    noise = np.maximum(noise, 1e-20)
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


def calibrate(observed, mask, rate, restore, size=0):
    """Estimate the spectrum of a sound's noise, and weights for the mixture of `candidates`.

    restore(observed, mask) returns the network's reconstruction; all are (T,). size: the length of
    artificial gaps, 0 if the sound has none. Returns the spectrum (F,), see `least_noise`, and the
    weights (3,). They sum to 1 and come from the errors of the candidates in artificial gaps.
    """
    frames, reconstruction = transform(rate), restore(observed, mask)
    quiet = quiet_power(frames, observed, reconstruction, mask)
    spectrum = least_noise(frames, quiet, loud_power(observed, frames.hop))
    artificial = np.zeros(mask.size, bool)
    if size:
        artificial = inside(artificial_gaps(runs(mask), mask.size, size), 0, mask.size)
    if not artificial.any():
        return spectrum, np.array([0.0, 1.0, 0.0])
    both = np.maximum(mask, artificial)
    hidden = np.where(both == 1, 0, observed)
    reconstruction = restore(hidden, both)
    power = noise_power(quiet_power(frames, hidden, reconstruction, both), spectrum)
    found = candidates(frames, observed, both, reconstruction, power)[:, artificial[both == 1]]
    errors = np.maximum(((found - observed[artificial]) ** 2).mean(1), 1e-20)
    weights = mixture_weights(errors, SHARPNESS)
    return spectrum, weights / weights.sum()


def denoise(observed, mask, reconstruction, rate, spectrum, weights):
    """Fill the gaps of a sound and remove its noise: observed, mask, reconstruction (T,).

    Gaps get the mixture of `candidates` with `weights` (3,), then noise is removed. spectrum: from
    `least_noise`. Returns the sound, and True where it had noise; both are (T,).
    """
    frames, filled = transform(rate), np.where(mask == 1, reconstruction, observed)
    noise = noise_power(quiet_power(frames, observed, reconstruction, mask), spectrum)
    if mask.any() and weights[1] < 1:
        filled[mask == 1] = weights @ candidates(frames, observed, mask, reconstruction, noise)
    nearest = (np.arange(filled.size) + frames.hop // 2) // frames.hop - frames.p_min
    noisy = noise.any(0)[nearest]
    return (wiener(frames, filled, reconstruction, noise) if noisy.any() else filled), noisy


def denoise_long(observed, mask, reconstruction, rate, restore=None):
    """Fill the gaps of a whole sound, and estimate and remove its noise. Returns (T,).

    observed, mask, reconstruction: (T,). restore(observed, mask) returns the reconstruction for
    artificial gaps. Without `restore`, the network alone fills the gaps.
    """
    size = typical_size(runs(mask)) if restore else 0
    restore = restore or (lambda sound, mask: reconstruction)
    calibrated = calibrate(observed, mask, rate, restore, size)
    return denoise(observed, mask, reconstruction, rate, *calibrated)[0]
