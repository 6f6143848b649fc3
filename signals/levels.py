"""Offset and level of a sound over time, to show it to a network as in training.

Both are estimated from the observed samples.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # lazy: its parts load at first use, so that --help needs none of them

from audio_utils import SILENCE_DB

PIECES_A_WINDOW = 8
PIECES_A_BLOCK = 8192  # read at once
OFFSET_WINDOWS = 8  # windows in the Hann-weighted mean of an offset: many periods of any note
SURE = 3.0  # standard errors; a smaller offset counts as none
STEADY_DB = 0.7  # variation of a steady tone in noise; smaller changes of level are ignored
RIGHT_DB = 0.1  # tolerance: a level this close to that of training is not corrected
FLOOR = (1.25, 1.5)  # power relative to the noise: rests are below, sounds above
SMOOTH = np.ones(5)  # pieces over which the gain changes
MOST_DB = 60.0  # of gain, at most
LISTENED = 256  # windows for the estimates of the noise and of the tone's level
ROUNDS = 3  # of these estimates, until they settle
EXPLAINED = 0.9  # of the best windows' correlation with the network's output; others are ignored


@dataclass(frozen=True)
class Levels:
    """Offset and gain over time: one value per piece, linearly interpolated between centers."""

    piece: int  # samples
    offsets: np.ndarray  # (P,)
    gains_db: np.ndarray  # (P,), from the sound to the level of training
    correction: float  # factor for the network's output

    def at(self, first, end):
        """Offset and gain for the samples [first, end): (end - first,) each, float32."""
        low = max(0, min(first // self.piece - 1, len(self.offsets) - 1))
        part = slice(low, end // self.piece + 2)
        centres = (np.arange(low, low + len(self.offsets[part])) + 0.5) * self.piece
        time = np.arange(first, end) + 0.5
        offset, gain_db = (
            np.interp(time, centres, values[part]) for values in (self.offsets, self.gains_db)
        )
        return offset.astype(np.float32), (10 ** (gain_db / 20)).astype(np.float32)


def measure(read, samples, reconstruct, window, trained_rms):
    """Measure the Levels of a sound of `samples` samples.

    read(first, end): its samples, 0 where missing, and their mask. reconstruct(corrupted, observed)
    maps windows to windows, all (B, window), float32. The gain brings the tone, without its noise,
    to the level of training: it depends on how much of each window the network explains.
    """
    piece = max(1, window // PIECES_A_WINDOW)
    count, total, energy = _pieces(read, samples, piece)
    offsets = _offsets(count, total, energy)
    energy = np.maximum(energy - 2 * offsets * total + offsets**2 * count, 0)  # without the offset
    loud = energy > 10 ** (SILENCE_DB / 10) * energy.sum() / max(count.sum(), 1) * count
    if not loud.any():
        return Levels(piece, offsets, np.zeros(len(offsets)), 1.0)
    file_db = 20 * np.log10(trained_rms) - 10 * np.log10(energy[loud].sum() / count[loud].sum())
    power, wide_power = _powers(count, energy)
    quieter_db = _quieter_db(power, energy, loud)
    heard_db = noise = 0.0  # gain that the tone lacks, and the power of the noise
    for turn in range(ROUNDS):
        low, high = FLOOR
        sounding = np.clip(
            (np.minimum(power, wide_power) / max(noise, 1e-30) - low) / (high - low), 0, 1
        )
        gains_db = (quieter_db + _beyond(heard_db, RIGHT_DB)) * sounding
        known = scipy.ndimage.convolve1d((power > 0).astype(float), SMOOTH, mode="constant")
        gains_db = scipy.ndimage.convolve1d(
            gains_db * (power > 0), SMOOTH, mode="constant"
        ) / np.maximum(known, 1)
        levels = Levels(piece, offsets, file_db + gains_db, 1.0)
        found_db, noise = _listen(read, samples, reconstruct, window, levels)
        heard_db = heard_db - found_db if turn < ROUNDS - 1 else heard_db
    return Levels(piece, offsets, file_db + gains_db, 10 ** (_beyond(found_db, RIGHT_DB) / 20))


def _pieces(read, samples, piece):
    """Number of observed samples, their sum and their energy in each piece: three times (P,)."""
    found = []
    for first in range(0, samples, PIECES_A_BLOCK * piece):
        end = min(first + PIECES_A_BLOCK * piece, samples)
        values, mask = (
            np.pad(part, (0, -(end - first) % piece)).reshape(-1, piece)
            for part in read(first, end)
        )
        observed = np.full(len(mask), piece) - mask.sum(1)
        observed[-1] -= -(end - first) % piece
        found.append(
            [
                observed,
                values.sum(1, dtype=float),
                np.einsum("ps,ps->p", values, values, dtype=float),
            ]
        )
    return np.concatenate(found, 1)


def _beyond(values, least):
    """Set values below `least` to 0 and keep large ones, with a smooth transition."""
    size = np.maximum(np.abs(values), 1e-30)
    return values * np.maximum(0, 1 - (least / size) ** 2)


def _offsets(count, total, energy):
    """Offset of each piece where it is significant, the sound's mean plus its drift: (P,)."""
    observed = max(count.sum(), 1)
    whole = total.sum() / observed
    variance = max(energy.sum() / observed - whole**2, 0)
    whole = _beyond(whole, SURE * np.sqrt(variance / observed))
    weights = np.hanning(OFFSET_WINDOWS * PIECES_A_WINDOW + 3)[1:-1]
    near, sums, squares = (
        scipy.ndimage.convolve1d(values, weights, mode="constant")
        for values in (count, total - whole * count, energy - 2 * whole * total + whole**2 * count)
    )
    spread = scipy.ndimage.convolve1d(count, weights**2, mode="constant")
    near = np.maximum(near, 1)
    return whole + _beyond(
        sums / near, SURE * np.sqrt(np.maximum(squares, 0) / near * spread) / near
    )


def _powers(count, energy):
    """Greatest power near each piece, 0 if unknown, and mean over a window: (P,), (P,)."""
    near, power = (
        scipy.ndimage.convolve1d(values, np.ones(3), mode="constant") for values in (count, energy)
    )
    power = np.where(near >= 0.9 * count.max(), power / np.maximum(near, 1), 0)
    wide, total = (
        scipy.ndimage.uniform_filter1d(values, PIECES_A_WINDOW + 1) for values in (count, energy)
    )
    return scipy.ndimage.maximum_filter1d(power, 3), total / np.maximum(wide, 1)


def _quieter_db(power, energy, loud):
    """Gain that brings each piece to the sound's usual level, in dB: (P,)."""
    level_db = 10 * np.log10(np.maximum(power, 1e-30))
    order = np.argsort(level_db[loud])
    energies = np.cumsum(energy[loud][order])
    half = np.searchsorted(energies, energies[-1] / 2)  # half of the energy is quieter
    usual_db = level_db[loud][order][half]
    return _beyond(np.clip(usual_db - level_db, -MOST_DB, MOST_DB), STEADY_DB)


def _listen(read, samples, reconstruct, window, levels):
    """Level of the tone relative to the network's, in dB, and power of the noise."""
    starts = np.unique(np.linspace(0, samples - window, LISTENED).astype(int))
    shown, observed, gains = [], [], []
    for start in starts:
        values, mask = read(start, start + window)
        offset, gain = levels.at(start, start + window)
        observed.append(1 - mask)
        shown.append((values - offset) * gain * observed[-1])
        gains.append(gain[window // 2])
    shown, observed = np.array(shown, np.float32), np.array(observed, np.float32)
    drawn = np.asarray(reconstruct(shown, observed), np.float32)
    both, own, theirs = (
        (a * b * observed).sum(1, dtype=float)
        for a, b in [(shown, drawn), (shown, shown), (drawn, drawn)]
    )
    some = (own > 0) & (theirs > 0)
    if not some.any():
        return 0.0, 0.0
    both, own, theirs, count, gains = (
        v[some] for v in (both, own, theirs, observed.sum(1), np.array(gains))
    )
    correlation = both / np.sqrt(own * theirs)
    good = correlation >= EXPLAINED * np.quantile(correlation, 0.95)
    factor = np.median(both[good] / theirs[good])
    noise = np.quantile(np.maximum(own - both**2 / theirs, 0) / count / gains**2, 0.1)
    return float(20 * np.log10(np.clip(factor, 0.1, 10))), noise
