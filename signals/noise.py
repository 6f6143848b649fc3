"""Noisy, chopped sounds: the noise's spectrum, estimated, and the posterior mean of what sounds beneath it.

A network's reconstruction says where a sound is and what belongs in its gaps; the phases of what is observed carry what
the bottleneck loses. Together they are ahead of both.
"""

import numpy as np
import scipy  # its parts load when first used: --help needs none of them

from audio_utils import runs
from signals import fill_gaps

FRAME_SECONDS, FRAMES_A_SAMPLE = 0.128, 4  # of the spectra; as many lie over each sample
QUIET = 0.1  # of the frames: in as many a frequency holds noise alone
NEIGHBOURS = 31  # frequencies of which the median counts: fewer than these belong to partials that never rest
LEAST_OBSERVED = 0.3  # of a frame, for it to tell of the noise
SURELY_SOUND = 12  # times the noise's power: noise itself is as strong once in exp(12)
SOUND_ENOUGH = (
    3  # the same for what a gap is continued from: rather noise than partials that are lacking
)
NO_NOISE_DB = (
    -30.0
)  # below the sound: less is not told from what a network does not draw of a clean recording
TRIALS, TRIAL_ROOM = (
    16,
    16,
)  # gaps in which ways to fill others are compared; so many times their length apart
SHARPNESS = 2  # the power of their errors that shares are the inverse of


def transform(rate):
    """The short-time Fourier transform, Hann frames of FRAME_SECONDS at `rate` Hz: a scipy.signal.ShortTimeFFT."""
    hop = max(1, round(FRAME_SECONDS * rate / FRAMES_A_SAMPLE))
    return scipy.signal.ShortTimeFFT(
        scipy.signal.windows.hann(hop * FRAMES_A_SAMPLE, sym=False), hop, rate
    )


def quiet_power(frames, observed, drawn, mask):
    """What each frequency of each frame holds at most of noise: (F, K); nan for frames that are mostly missing.

    frames: of `transform`. observed, drawn, mask (T,): the sound with noise, the network's reconstruction, 1 where
    missing. The lesser of the power itself and that of what the network leaves, as of a frame observed as a whole.
    """
    square = frames.win**2 / np.sum(frames.win**2)
    weights = scipy.signal.ShortTimeFFT(square, frames.hop, frames.fs)
    share = weights.stft(1.0 - mask)[
        0
    ].real  # the zero frequency: the observed part of each frame's energy
    whole = (mask == 0) * observed
    power = np.minimum(
        *(np.abs(frames.stft(part)) ** 2 for part in (whole, whole - (mask == 0) * drawn))
    )
    return np.where(share >= LEAST_OBSERVED, power / np.maximum(share, LEAST_OBSERVED), np.nan)


def noise_power(quiet):
    """The power of stationary noise in a frame at each frequency: (F, K) of `quiet_power` -> (F,).

    Noise has an exponentially distributed power, whose QUIET quantile is -log(1 - QUIET) of its mean. What partials
    that never rest add to it goes with the median over neighbouring frequencies.
    """
    known = quiet[:, ~np.isnan(quiet).all(0)]
    if not known.size:
        return np.zeros(len(quiet))
    power = np.quantile(known, QUIET, axis=1) / -np.log1p(-QUIET)
    return scipy.ndimage.median_filter(power, NEIGHBOURS, mode="mirror")


def below_db(noise, sound, frames):
    """Level of noise of this power (F,) in a frame of `transform`, relative to that of the sound (T,), dB."""
    power = noise[0] + noise[-1] + 2 * noise[1:-1].sum()
    return 10 * np.log10(
        max(power, 1e-20) / (frames.m_num * np.sum(frames.win**2) * max(np.mean(sound**2), 1e-20))
    )


def estimated(frames, observed, mask, drawn):
    """The power of a sound's noise (F,), 0 if it is next to nothing, and its level relative to the sound, dB.

    frames: of `transform`. observed, mask, drawn (T,): the sound, 1 where missing, the network's reconstruction.
    """
    power = noise_power(quiet_power(frames, observed, drawn, mask))
    level_db = below_db(power, observed[mask == 0], frames)
    return power if level_db > NO_NOISE_DB else np.zeros_like(power), level_db


def wiener(frames, sound, drawn, noise, sure=SURELY_SOUND):
    """The posterior mean of a sound under noise of known power (F,), each frequency and time by itself: (T,) -> (T,).

    Wiener's gain S / (S + noise), the sound's power S being that of the network's reconstruction, `drawn` (T,); where
    what is observed has `sure` times the noise's power, at least what it has beyond the noise's.
    """
    found, power = frames.stft(sound), np.abs(frames.stft(drawn)) ** 2
    noise = np.maximum(noise, 1e-20)[:, None]
    excess = np.abs(found) ** 2 - noise
    power = np.where(excess > sure * noise, np.maximum(power, excess), power)
    return frames.istft(found * (power / (power + noise)), k1=len(sound))


def classic_wiener(frames, sound, noise):
    """The same without a network: the gain is 1 - 2 noise / |F|^2, at least 0, F being what is heard: (T,) -> (T,)."""
    found = frames.stft(sound)
    ratio = noise[:, None] / np.maximum(np.abs(found) ** 2, 1e-20)
    return frames.istft(found * np.maximum(0, 1 - 2 * ratio), k1=len(sound))


def candidates(frames, observed, mask, drawn, noise):
    """Three ways to fill the gaps of a sound, of which most of the noise is taken out before: (3, M) at M samples.

    As autoregressive processes would continue it; the network's reconstruction; and that with what it leaves continued.
    """
    missing = mask == 1
    sound = np.where(missing, drawn, observed)
    if noise.any():
        sound = wiener(frames, sound, drawn, noise, SOUND_ENOUGH)
    rate, gaps = round(frames.fs), runs(mask)
    alone, rest = (fill_gaps.fill(part, gaps, rate)[missing] for part in (sound, sound - drawn))
    alone = np.where(
        alone == 0, drawn[missing], alone
    )  # gaps too long or too many for it are left at 0
    return np.stack([alone, drawn[missing], drawn[missing] + rest])


def mixture_weights(ways, truth):
    """What each of some estimates (W, M) deserves of their mixture, by how near the truth (M,) it is: (W,), sum 1."""
    errors = np.maximum(((ways - truth) ** 2).mean(1), 1e-20)
    weights = (errors.min() / errors) ** SHARPNESS
    return weights / weights.sum()


def artificial_gaps(mask):
    """A mask (T,) of gaps in what another one has as observed: as long as its own, at most TRIALS, evenly spread."""
    gaps, trials = runs(mask), np.zeros_like(mask)
    if not len(gaps):
        return trials
    usual = int(np.median(np.ptp(gaps, axis=1)))
    rooms = np.column_stack([np.append(0, gaps[:, 1]), np.append(gaps[:, 0], mask.size)])
    places = []  # of the middle, and how long
    for first, end in rooms:
        count = max(1, (end - first) // (TRIAL_ROOM * usual))
        middles = first + (np.arange(count) + 0.5) * (end - first) / count
        places += [(int(middle), min(usual, (end - first) // 3)) for middle in middles]
    for number in np.unique(np.linspace(0, len(places) - 1, TRIALS).astype(int)):
        middle, size = places[number]
        trials[middle - size // 2 : middle - size // 2 + size] = 1
    return trials


def calibrate(observed, mask, rate, redraw):
    """The power of a sound's noise (F,), its level relative to the sound, dB, and the shares (3,) of `candidates`.

    observed, mask (T,). redraw(observed, mask): the network's reconstruction, (T,). What is shared out is told by gaps
    made for trial.
    """
    frames, drawn, trials = transform(rate), redraw(observed, mask), artificial_gaps(mask)
    noise, level_db = estimated(frames, observed, mask, drawn)
    if not trials.any():
        return noise, level_db, np.array([0.0, 1.0, 0.0])
    both = np.maximum(mask, trials)
    again = redraw(np.where(both == 1, 0, observed), both)
    found = candidates(frames, observed, both, again, noise)[:, trials[both == 1] == 1]
    return noise, level_db, mixture_weights(found, observed[trials == 1])


def denoise(observed, mask, drawn, rate, noise, weights):
    """The posterior mean of a sound with gaps and noise: observed, mask, drawn (T,) -> (T,).

    The gaps are filled with the mixture of `candidates` that the weights (3,) say, then noise of that power (F,), if
    there is any, is taken out.
    """
    frames, filled = transform(rate), np.array(observed, float)
    if mask.any():
        filled[mask == 1] = weights @ candidates(frames, observed, mask, drawn, noise)
    return wiener(frames, filled, drawn, noise) if noise.any() else filled
