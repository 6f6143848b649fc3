"""Fill the gaps of noisy recordings, estimate their steady noise and remove it.

A network's reconstruction shows the frequencies of the sound and fills its gaps. The observed
samples hold details that the network's bottleneck loses. An estimate of the risk decides how much
of the sound is denoised with the network's guidance, and how much without it.
"""

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast
from numpy.lib.stride_tricks import sliding_window_view

from audio_utils import runs
from signals.fill_gaps import fill, mixture_weights
from signals.gaps import inside

FRAME_SECONDS = 0.128  # duration of a frame of the spectrogram
# Filters: relative duration of frames (short for speech, long for steady tones), guided or not.
ESTIMATES = (0.5, False), (1, True), (2, False), (2, True)
FRAMES_PER_SAMPLE = 4  # number of overlapping frames that contain a sample
QUIET_QUANTILE = 0.2  # fraction of frames assumed to contain only noise, at each frequency
FLOOR_QUANTILE = 0.35  # fraction of frequencies assumed to contain only noise, in each frame
LOUD_QUANTILE = 0.8  # of power over time; shows loud parts despite silence and brief louder events
LEVEL_FRAMES = 75  # 2.4 s; duration over which the level of noise is steady
LEVEL_PERCENTILE = 10  # of the frames' levels; the others may hold speech and attacks
LEVEL_BIAS = 0.87  # this percentile in white noise, relative to its true level
LEVEL_RANGE = 1.25  # maximum level (1 dB), relative to the rough estimate from the frame alone
STEADY_DB = 2  # maximum median change of the level of noise between adjacent disjoint frames
WEAK = 1e-4  # frequencies with less noise, relative to the strongest, are not used for the level
SMOOTHED_BINS = 31  # width of the running median over frequency; wider than a steady partial
MIN_FRACTION_OBSERVED = 0.3  # noise is estimated only from frames with at least this fraction
DRAWN = 4  # the network knows a frequency if it draws at least 1 / DRAWN of the sound's power
EXCESS = 8  # minimum (power - noise) / noise; its probability in pure noise is exp(-9)
STEP = 0.1  # of the finite difference in the risk, relative to the noise
CAUTION = 1.1  # factor of the trace: too low an estimate of the noise does more harm than too high
TINY = 1e-20  # power, to avoid division by 0
BAND = 129  # frequencies (1 kHz) that share a weight
NO_NOISE_DB = -40.0  # minimum noise to remove, relative to the sound; weaker noise may be detail
ARTIFICIAL_GAPS = 16  # maximum number; their errors determine the mixture weights
ARTIFICIAL_SPACING = 16  # distance between artificial gaps, in gap lengths
CANDIDATE_SHARPNESS = 2  # a candidate's weight is its inverse squared error to this power


def transform(rate, scale=1):
    """Return SciPy's ShortTimeFFT at `rate` Hz, with Hann frames of scale * FRAME_SECONDS.

    Windows have energy 1, so white noise has its variance as power in all frames.
    """
    hop = max(1, round(scale * FRAME_SECONDS * rate / FRAMES_PER_SAMPLE))
    hop = scipy.fft.next_fast_len(hop, real=True)  # 4 times faster at 44.1 kHz
    taper = scipy.signal.windows.hann(hop * FRAMES_PER_SAMPLE, sym=False)
    return scipy.signal.ShortTimeFFT(np.float32(taper / np.linalg.norm(taper)), hop, rate)


def windows(frames, sound):
    """Return the parts of a sound (T,) in each frame, with zeros around the sound: (K, N)."""
    start, count = frames.p_min * frames.hop - frames.m_num_mid, frames.p_num(sound.size)
    end = start + (count - 1) * frames.hop + frames.m_num
    padded = np.pad(np.float32(sound), (-start, max(0, end - sound.size)))[: end - start]
    return sliding_window_view(padded, frames.m_num)[:: frames.hop]


def stft(frames, sound):
    """Return the spectra (F, K) of a sound (T,).

    Like `frames.stft`, but phases are relative to the start of a frame. It is faster, because
    SciPy transforms one frame at a time.
    """
    return scipy.fft.rfft(windows(frames, sound) * frames.win).T


def inner_products(frames, signals):
    """Return the real inner products of the spectra of signals (S, T), per frequency: (F, S, S)."""
    spectra = np.array([stft(frames, signal) for signal in signals]).view(np.float32)
    return spectra.swapaxes(0, 1) @ spectra.transpose(1, 2, 0)  # of real and imaginary parts


def istft(frames, spectra, samples):
    """Return the sound (samples,) whose `stft` is nearest to given spectra (F, K)."""
    parts = scipy.fft.irfft(spectra.T, frames.m_num)
    parts *= frames.dual_win
    total = np.zeros((len(parts) + FRAMES_PER_SAMPLE - 1, frames.hop), parts.dtype)
    for number, part in enumerate(np.split(parts, FRAMES_PER_SAMPLE, axis=1)):
        total[number : number + len(part)] += part
    start = frames.m_num_mid - frames.p_min * frames.hop
    return total.ravel()[start : start + samples]


def quiet_power(frames, sound, reconstruction, mask):
    """Return an upper bound (F, K) on the noise's power at each frequency in each frame.

    frames: from `transform`. The signals (T,) are the noisy sound with filled gaps (zeros would
    spread its partials), the network's output and a mask, 1 where missing. The bound is the power
    of the sound. At frequencies that the network knows it is the power of the residual, if this is
    less. Both are scaled up for the missing samples. Frames with too few observed samples get nan.
    """
    fraction = windows(frames, 1.0 - mask) @ frames.win**2  # observed in each frame
    sound, drawn = stft(frames, sound), stft(frames, reconstruction)
    sound, drawn, residual = (np.abs(part) ** 2 for part in (sound, drawn, sound - drawn))
    # Their minimum at all frequencies would underestimate the noise by up to 0.5 dB.
    power = np.where(DRAWN * drawn > sound, np.minimum(sound, residual), sound)
    scaled = power / np.maximum(fraction, MIN_FRACTION_OBSERVED)
    return np.where(fraction >= MIN_FRACTION_OBSERVED, scaled, np.nan)


def smooth(spectrum):
    """Remove the partials that never stop from a spectrum, by a median over frequency: (F,)."""
    smoothed = scipy.ndimage.median_filter(spectrum, SMOOTHED_BINS, mode="mirror")
    for bin in range(SMOOTHED_BINS // 2):  # symmetric here too, because much noise is like 1 / f
        smoothed[bin] = np.median(spectrum[: 2 * bin + 1])
    return smoothed


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
    spectrum = smooth(np.quantile(known, LOUD_QUANTILE, axis=1)) + TINY
    for _ in range(2):  # the first spectrum is that of the sound, if the sound hardly ever pauses
        gain = gains(known, spectrum * (least / mean_square(frames, spectrum)))
        if (gain > 1).any():
            steady = known[:, gain > 1] / gain[gain > 1]
            spectrum = smooth(np.quantile(steady, QUIET_QUANTILE, axis=1)) + TINY
    return spectrum * (least / mean_square(frames, spectrum))


def noise_power(quiet, spectrum):
    """Return the noise's power in each frame: (F, K), (F,) -> (F, K), 0 where it is negligible.

    spectrum: from `least_noise`. The level is a running quantile over the frames with noise, so
    neither a short loud event nor silence matters. If the level changes from frame to frame, it is
    taken for that of the sound.
    """
    gain = gains(quiet, spectrum) if spectrum.any() else np.zeros(quiet.shape[1])
    # Frames at the edge of silence hold noise in part only.
    known = (gain > 1) | np.isnan(gain)
    inner = scipy.ndimage.binary_erosion(known, np.ones(2 * FRAMES_PER_SAMPLE - 1), border_value=1)
    noisy = np.flatnonzero(inner & (gain > 1))
    if noisy.size < min(LEVEL_FRAMES / 2, gain.size) / 2:
        return np.zeros_like(quiet)
    apart = FRAMES_PER_SAMPLE  # frames this far apart do not overlap
    level_db = np.pad(10 * np.log10(gain + TINY), apart, constant_values=np.nan)
    step = np.abs(level_db[apart:] - level_db[:-apart])
    change = np.fmin(step[apart:], step[:-apart])  # to the frame after or before, whichever is less
    change = scipy.ndimage.median_filter(np.nan_to_num(change[noisy]), LEVEL_FRAMES)
    level = scipy.ndimage.percentile_filter(gain[noisy], LEVEL_PERCENTILE, LEVEL_FRAMES)
    level = np.where(change < STEADY_DB, level / LEVEL_BIAS, 0)
    gain = np.fmin(LEVEL_RANGE * gain, np.interp(np.arange(gain.size), noisy, level))
    return np.float32(spectrum[:, None] * np.where(gain > 1, gain, 0))


def loud_power(sound, hop):
    """Return the mean square of the loud parts of a sound (T,)."""
    hops = np.resize(sound, (-(-sound.size // hop), hop))
    return np.quantile((hops**2).mean(1), LOUD_QUANTILE)


def typical_size(gaps):
    """Return the median length of gaps (n, 2), 0 if there are none."""
    return int(np.median(np.ptp(gaps, axis=1))) if len(gaps) else 0


def mean_square(frames, power):
    """Return the mean square of noise of power (F,) per frame."""
    return (power[0] + power[-1] + 2 * power[1:-1].sum()) / frames.m_num


def guided_wiener(frames, sound, reconstruction, noise, weight=1):
    """Return the posterior mean of a sound in noise of power (F, K), times `weight` (F, 1): (T,).

    The sound has the power of the network's reconstruction (T,), or its own where this exceeds the
    noise by more than EXCESS times the noise. Wiener's gain is power / (power + noise).
    """
    power, spectra = np.abs(stft(frames, reconstruction)) ** 2, stft(frames, sound)
    excess = np.abs(spectra) ** 2 - noise
    power = np.maximum(power, np.where(excess > EXCESS * noise, excess, 0))
    return istft(frames, weight * power / (power + noise + TINY) * spectra, sound.size)


def classic_wiener(frames, sound, noise, again=0, weight=1):
    """Apply a Wiener filter without a network, and `weight` (F, 1): (T,) -> (T,).

    The noise has power (F,) or (F, K). The gain is 1 - 2 noise / |spectrum|^2, or 0 if this is
    negative. `again` more passes take the sound's power from the result of the one before: two
    passes beat one (empirical Wiener filter, Ghael, Sayeed and Baraniuk 1997).
    """
    noise, spectra = noise.reshape(frames.f_pts, -1), stft(frames, sound)
    gain = np.maximum(0, 1 - 2 * noise / (np.abs(spectra) ** 2 + TINY))
    for _ in range(again):
        power = np.abs(stft(frames, istft(frames, gain * spectra, sound.size))) ** 2
        gain = power / (power + noise + TINY)
    return istft(frames, weight * gain * spectra, sound.size)


def power_in(own, frames, noise, samples):
    """Convert the power (F, K) of noise in `frames` to the power (F', K') in frames `own`."""
    centers = np.arange(own.p_min, own.p_max(samples)) * own.hop
    nearest = np.rint(centers / frames.hop).astype(int) - frames.p_min
    noise = noise[:, np.clip(nearest, 0, noise.shape[1] - 1)]
    return np.float32(scipy.interpolate.make_interp_spline(frames.f, noise, k=1)(own.f))


def denoised(frames, sound, reconstruction, noise, weights=1.0):
    """Return ESTIMATES (4, T) of a sound (T,) in noise of power (F, K), times weights (4, F)."""
    estimates, weights = [], np.broadcast_to(np.float32(weights), (len(ESTIMATES), frames.f_pts))
    by_scale = {scale: transform(frames.fs, scale) for scale, _ in ESTIMATES}
    powers = {scale: power_in(own, frames, noise, sound.size) for scale, own in by_scale.items()}
    for (scale, guided), weight in zip(ESTIMATES, weights):
        own, power = by_scale[scale], powers[scale]
        weight = np.float32(np.interp(own.f, frames.f, weight))[:, None]
        if guided:
            estimates.append(guided_wiener(own, sound, reconstruction, power, weight))
        else:
            estimates.append(classic_wiener(own, sound, power, 1, weight))
    return np.stack(estimates)


def least_risk(frames, sound, mask, reconstruction, noise):
    """Return the weights (4, F) of the estimates of `denoised` in the mixture of least risk.

    sound (T,): noisy, with its gaps filled. The risk at the observed samples is Stein's estimate
    |y - f(y)|^2 + 2 tr(C J) - tr C, for noise of covariance C and Jacobian J of f. A finite
    difference with one random probe of the noise gives the trace (Ramani, Blu and Unser 2008,
    doi 10.1109/TIP.2008.2001404). It is over the gaps too, because the filling repeats the noise
    around it: without them the trace would be too low.

    The mixture starts as the first estimate. One after the other, the others join it, each with the
    weight of least risk.
    """
    white = stft(frames, np.random.default_rng(0).standard_normal(sound.size))
    probe = istft(frames, white * np.sqrt(noise), sound.size)
    probe *= np.sign(probe @ sound)  # so inverting the sound changes no weight
    before = denoised(frames, sound, reconstruction, noise)
    after = denoised(frames, sound + STEP * probe, reconstruction, noise)
    # Differences from the first estimate, because float32 cannot tell nearly equal powers apart.
    changes = (after - before) / STEP
    target, *steps = (mask == 0) * (np.stack([sound, *before[1:]], dtype=np.float32) - before[0])
    products = inner_products(frames, [*steps, target, *(changes[1:] - changes[0]), probe])
    count = len(steps)
    curvature, trace = products[:, :count, :count], products[:, count + 1 : -1, -1]
    descent = products[:, :count, count] - CAUTION * trace  # -1/2 of the gradient at weights of 0
    weights = np.zeros((frames.f_pts, count))
    for alone in np.eye(count):  # move toward this estimate alone, as far as the risk falls
        step = alone - weights
        curved = np.matvec(curvature, step)
        sums = np.vecdot(descent, step) - np.vecdot(curved, weights), np.vecdot(curved, step)
        gain, scale = (scipy.ndimage.uniform_filter1d(part, BAND) for part in sums)
        weights += np.clip(gain / np.maximum(scale, TINY), 0, 1)[:, None] * step
    return np.float32([1 - weights.sum(1), *weights.T])


def candidates(frames, sound, mask, reconstruction, noise):
    """Return six estimates (6, M) of the M missing samples of a sound (T,).

    First come those of `denoised` for the sound, whose gaps are filled by autoregression. Then come
    the reconstruction plus its residual, continued by autoregression, and the reconstruction.
    """
    estimates = [sound] * len(ESTIMATES)
    if noise.any():
        estimates = denoised(frames, sound, reconstruction, noise)
    residual = fill((mask == 0) * (estimates[1] - reconstruction), runs(mask), round(frames.fs))
    return np.stack([*estimates, reconstruction + residual, reconstruction])[:, mask == 1]


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
    """Estimate the spectrum of a sound's noise, and the weights of the estimates to mix.

    restore(observed, mask) returns the network's reconstruction; all are (T,). size: the length of
    artificial gaps, 0 if the sound has none. Returns the spectrum (F,), see `least_noise`, the
    weights (4, F) from `least_risk`, and the weights (6,) of `candidates`. The latter sum to 1 and
    come from the errors in artificial gaps. They are None if there are no such gaps.
    """
    frames, truth, artificial = transform(rate), observed, np.zeros(mask.size, bool)
    if size:
        artificial = inside(artificial_gaps(runs(mask), mask.size, size), 0, mask.size)
        mask = np.maximum(mask, artificial)
        observed = np.where(mask == 1, 0, observed)
    reconstruction = restore(observed, mask)
    sound = np.where(mask == 1, reconstruction, observed)
    if artificial.any():
        sound = fill(sound, runs(mask), rate)
    quiet = quiet_power(frames, sound, reconstruction, mask)
    spectrum = least_noise(frames, quiet, loud_power(observed, frames.hop))
    power, weights = noise_power(quiet, spectrum), None
    if artificial.any():
        found = candidates(frames, sound, mask, reconstruction, power)[:, artificial[mask == 1]]
        errors = np.maximum(((found - truth[artificial]) ** 2).mean(1), TINY)
        weights = mixture_weights(errors, CANDIDATE_SHARPNESS)
        weights /= weights.sum()
    return spectrum, least_risk(frames, sound, mask, reconstruction, power), weights


def denoise(observed, mask, reconstruction, rate, spectrum, denoisers, weights):
    """Fill the gaps of a sound and remove its noise: observed, mask, reconstruction (T,).

    The last three are from `calibrate`. Gaps get the mixture of `candidates` (without weights, the
    reconstruction). Then noise is removed. Returns the sound and True where it had noise: (T,).
    """
    frames, sound = transform(rate), np.where(mask == 1, reconstruction, observed)
    if weights is not None:
        sound = fill(sound, runs(mask), rate)
    noise = noise_power(quiet_power(frames, sound, reconstruction, mask), spectrum)
    if mask.any() and weights is not None:
        sound[mask == 1] = weights @ candidates(frames, sound, mask, reconstruction, noise)
    frame = (np.arange(sound.size) + frames.hop // 2) // frames.hop - frames.p_min  # the nearest
    noisy = noise.any(0)[frame]
    if noisy.any():
        sound = denoised(frames, sound, reconstruction, noise, denoisers).sum(0)
    return sound, noisy
