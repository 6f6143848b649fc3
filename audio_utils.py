"""Sounds: notes, synthesis, WAV in and out, mending window by window, spectrogram, scores.

Signals are float arrays with full scale at -1 and 1, long ones (T,), batches of windows (B, N).
"""

import math
import re
import warnings

import numpy as np
import scipy  # its parts load when first used: --help needs none of them
from numpy.lib.stride_tricks import sliding_window_view

import draws
from quiet_tensorflow import tf

C_MAJOR = ("C4", "D4", "E4", "F4", "G4", "A4", "B4")
TONE_AMPLITUDE = 0.5  # peak
NOISE_STD = 0.2  # with the amplitude above: 4.95 dB SNR, a flute played with a lot of air
RMS = math.hypot(TONE_AMPLITUDE / math.sqrt(2), NOISE_STD)  # of notes with their noise, and what others are scaled to
NOTE_SECONDS = 0.5  # of each note of a scale
FADE_SECONDS = 0.002  # at both ends of each note of a scale: long enough not to click
SPECTRUM_FLOOR_DB = -80.0
WINDOWS_A_BLOCK = 512  # mended at once: few enough for a core's cache
LEAST_SHOWN = 1 / 8  # of a window, for its residual to count
NOT_EXPLAINED = np.float32(1e3)  # the residual of a window that is shown less: far above that of any other
EXPLAINED = (1e-8, 1e8)  # what products of two residuals are told apart: float32 holds their power -4, tapered too
PCM_FULL_SCALE = 32767  # 16 bits

# The partials of a note, at once, twice, ... its frequency: each with its relative amplitude and its decay in 1/s.
# All begin at the same point of their phase, so that a note has one waveform, wherever in time.
TIMBRES = {
    "sine": [(1, 0)],
    "harmonic": [(1 / number, 0) for number in range(1, 7)],
    "plucked": [(1 / number, 3 * number) for number in range(1, 7)],  # after half a second -13 dB, the sixth -78 dB
}


def note_frequency(name):
    """Frequency of a note in Hz, equal temperament with A4 = 440 Hz: "C4", "F#3", "Bb5". ValueError otherwise."""
    parts = re.fullmatch(r"([A-G])([#b]?)(-?\d)", name)
    if not parts:
        raise ValueError(f"{name!r} is not a note such as C4, F#3 or Bb5")
    letter, accidental, octave = parts.groups()
    semitone = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter]
    semitone += {"#": 1, "b": -1, "": 0}[accidental]
    return 440.0 * 2 ** ((semitone - 9 + 12 * (int(octave) - 4)) / 12)


def partials(note, timbre, sample_rate):
    """Amplitudes (peak, at the note's beginning) and decays (1/s) of a note's partials: (H,), (H,).

    Those at or above the Nyquist frequency have no amplitude. Together they have the RMS of a sinusoid of
    TONE_AMPLITUDE, over NOTE_SECONDS for one that decays.
    """
    amplitudes, decays = np.array(TIMBRES[timbre], float).T
    amplitudes[np.arange(1, decays.size + 1) * note_frequency(note) >= sample_rate / 2] = 0
    power = amplitudes**2 * scipy.special.exprel(-2 * NOTE_SECONDS * decays)  # the mean of exp(-2 decay time)
    return TONE_AMPLITUDE * amplitudes / np.sqrt(power.sum()), decays


def note_basis(note, timbre, sample_rate, samples):
    """What a note is a mixture of: its partials' amplitudes (H,), their sines, then cosines, decaying (2 H, samples).

    Frequencies are 1, 2, ... times the note's; time begins at 0, and so does the decay, from 1.
    """
    amplitudes, decays = partials(note, timbre, sample_rate)
    time = np.arange(samples) / sample_rate
    angle = 2 * np.pi * note_frequency(note) * np.outer(np.arange(1, decays.size + 1), time)
    envelope = np.exp(-np.outer(decays, time))
    return amplitudes, np.concatenate([envelope * np.sin(angle), envelope * np.cos(angle)])


def noisy_notes(notes, count, samples, sample_rate, seed, timbre="sine", first=0):
    """Windows of notes drawn at random, each of random phase: their tone, the same with white noise, which note.

    A window begins anywhere within a note of NOTE_SECONDS. Returns tone (count, samples), clean (count, samples),
    index into `notes` (count,). TensorFlow, stateless: the same `seed` (a pair of integers) gives the same windows.
    """
    note_seed, phase_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    index = draws.integers((count,), note_seed, first, len(notes))
    phase = draws.uniform((count, 1), phase_seed, first, 0, 2 * np.pi)
    latest = NOTE_SECONDS - samples / sample_rate
    age = draws.uniform((count, 1), tf.random.fold_in(phase_seed, 1), first, 0, latest)  # s, at the beginning
    # Of any phase and age, a partial is a mixture of its sine and its cosine as they decay from time 0: one product of
    # matrices for all, instead of a sine for each sample.
    amplitudes, basis = zip(*(note_basis(note, timbre, sample_rate, samples) for note in notes))
    number = np.arange(1, len(TIMBRES[timbre]) + 1, dtype=np.float32)  # (H,)
    decays = np.array(TIMBRES[timbre], np.float32)[:, 1]
    level = tf.gather(np.array(amplitudes, np.float32), index) * tf.exp(-decays * age)  # (count, H)
    weights = tf.concat([level * tf.cos(number * phase), level * tf.sin(number * phase)], axis=1)  # (count, 2 H)
    which = tf.one_hot(index, len(notes))  # (count, notes)
    weights = tf.reshape(which[:, :, None] * weights[:, None], (count, -1))
    tone = weights @ np.concatenate(basis).astype(np.float32)
    clean = tone + NOISE_STD * draws.normal((count, samples), noise_seed, first)
    return tone, clean, index


def noisy_scale(notes, seconds, sample_rate, rng, timbre="sine"):
    """The notes one after the other, `seconds` each: tone (T,) and the same with white noise, clean (T,).

    The phase runs on from note to note, as that of an oscillator does; each note is faded at both ends, and begins
    at full level where notes decay. `rng`: a numpy.random.Generator.
    """
    samples = round(seconds * sample_rate)
    frequency = np.repeat([note_frequency(note) for note in notes], samples)
    angle = 2 * np.pi * (rng.random() + np.cumsum(frequency) / sample_rate)
    amplitudes = np.array([partials(note, timbre, sample_rate)[0] for note in notes])  # (notes, H)
    tone = np.zeros(angle.size)
    for partial, (_, decay) in enumerate(TIMBRES[timbre]):
        level = np.outer(amplitudes[:, partial], np.exp(-decay * np.arange(samples) / sample_rate)).ravel()
        tone += level * np.sin((partial + 1) * angle)
    tone *= np.tile(note_fades(samples, sample_rate), len(notes))
    return tone, tone + NOISE_STD * rng.standard_normal(tone.size)


def note_fades(samples, sample_rate):
    """Amplitude that rises from 0 to 1 in FADE_SECONDS and falls back at the end, half a cosine each: (samples,)."""
    rise = np.clip((np.arange(samples) + 0.5) / sample_rate / FADE_SECONDS, 0, 1)
    return np.sin(0.5 * np.pi * np.minimum(rise, rise[::-1])) ** 2


def cut(signal, window):
    """Consecutive windows side by side, the last filled up with zeros: (T,) -> (ceil(T / window), window)."""
    return np.pad(signal, (0, -signal.size % window)).reshape(-1, window)


def mend(chopped, mask, reconstruct, window, hop):
    """Rebuild a long sound from overlapping windows: chopped, mask (T,) -> (T,), with T >= window.

    `mend_blocks` says how.
    """
    return np.concatenate(
        list(
            mend_blocks(
                lambda *part: (chopped[slice(*part)], mask[slice(*part)]), chopped.size, reconstruct, window, hop
            )
        )
    )


def mend_blocks(read, samples, reconstruct, window, hop):
    """Rebuild a long sound from overlapping windows, each trusted as far as it explains what is not missing.

    Yields the mended sound piece after piece, float32, in memory that does not grow with its length of `samples` (at
    least one window, else ValueError). read(first, end) gives those samples of the chopped sound and of its mask;
    `reconstruct` maps windows (B, window), float32, to windows. Every sample is the weighted mean of all the windows
    over it. The weight is a Hann taper, so that no window's edge is heard, times `_trust`. Dividing by the sum of
    weights keeps the level, at both ends too.
    """
    if samples < window:
        raise ValueError(f"{samples} samples are less than one window of {window}")
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)  # above 0 at both ends
    last = samples - window
    for first in range(0, samples, WINDOWS_A_BLOCK * hop):
        end = min(first + WINDOWS_A_BLOCK * hop, samples)
        # All the windows over this block; a few at its borders are computed for the neighbouring block again.
        starts = np.arange(max(0, -(-(first - window + 1) // hop) * hop), min(end, last), hop)
        if end > last:
            starts = np.append(starts, last)
        begin = starts[0]
        values, mask = read(begin, starts[-1] + window)
        chopped, shown = (
            sliding_window_view(np.asarray(part, np.float32), window)[starts - begin] for part in (values, 1 - mask)
        )
        outputs = np.asarray(reconstruct(chopped), np.float32)
        trust = taper * _trust(chopped, shown, outputs)
        mended = _overlap_add(trust * outputs, starts - begin, hop) / _overlap_add(trust, starts - begin, hop)
        yield mended[first - begin : end - begin]


def _overlap_add(windows, starts, hop):
    """Sum of windows (B, N), each at its start: `hop` after the one before, the last perhaps sooner. -> (T,)."""
    window = windows.shape[1]
    total = np.zeros((-(-(starts[-1] + window) // hop), hop), windows.dtype)
    for row, column in enumerate(range(0, window, hop)):  # the same part of all windows at once
        part = windows[:-1, column : column + hop]
        total[row : row + len(part), : part.shape[1]] += part
    total = total.ravel()[: starts[-1] + window]
    total[starts[-1] :] += windows[-1]
    return total


def _trust(inputs, shown, outputs):
    """How far to trust each sample of each window's output: all (B, N), in no particular unit.

    (Mean squared residual over the whole window times that over its neighbourhood, on samples that were shown)
    to the power -4. Windows that explain their input equally well count equally; one that lies across two
    notes, which a model of single notes cannot draw, fades out where it draws the wrong one. So does one that is
    shown next to nothing, and has nothing to explain.
    """
    error = np.square(inputs - outputs) * shown
    count = shown.sum(1, keepdims=True)
    whole = np.where(
        count >= LEAST_SHOWN * inputs.shape[1], error.sum(1, keepdims=True) / np.maximum(count, 1), NOT_EXPLAINED
    )
    width = inputs.shape[1] // 8
    near, near_count = (scipy.ndimage.uniform_filter1d(part, width, mode="constant") for part in (error, shown))
    local = (near + whole / width) / (near_count + 1 / width)  # as the whole where nothing near was
    return np.square(np.square(1 / np.clip(whole * local, *EXPLAINED)))  # many times faster than ** -4.0


def one_after_the_other(signals, sample_rate, pause=0.1):
    """Short sounds (count, N) as one (T,), each faded at its ends and followed by `pause` seconds of silence."""
    faded = signals * note_fades(signals.shape[1], sample_rate)
    return np.pad(faded, ((0, 0), (0, round(pause * sample_rate)))).ravel()


def _magnitudes(signal, window, hop):
    """Of the spectrum of each Hann-tapered piece, 1 for a constant of 1: (T,) -> (K, window // 2 + 1)."""
    taper = np.hanning(window + 1)[:-1]
    pieces = sliding_window_view(signal, window)[::hop]
    return np.abs(np.fft.rfft(pieces * (taper / taper.sum())))


def spectrogram_db(signal, sample_rate):
    """Level in dB relative to a full-scale sine: frequencies (F,) Hz, times (K,) s, levels (F, K).

    Hann windows of 1,024 samples, of a very short signal a quarter of it; three quarters of each are the next one's.
    """
    window = min(1024, signal.size // 4)
    hop = window // 4
    magnitudes = _magnitudes(signal, window, hop)
    times = (window / 2 + hop * np.arange(len(magnitudes))) / sample_rate
    levels = 20 * np.log10(np.maximum(2 * magnitudes.T, 10 ** (SPECTRUM_FLOOR_DB / 20)))
    return np.fft.rfftfreq(window, 1 / sample_rate), times, levels


def snr_db(reference, estimate):
    """Signal-to-noise ratio in dB: energy of the reference over that of the error, over all samples; nan for none."""
    reference, estimate = np.asarray(reference, float), np.asarray(estimate, float)
    if not reference.size:
        return float("nan")
    error = reference - estimate
    return 10 * np.log10(np.vdot(reference, reference) / np.vdot(error, error))


def si_sdr_db(reference, estimate):
    """Scale-invariant signal-to-distortion ratio in dB of two signals (T,).

    Le Roux, Wisdom, Erdogan, Hershey 2019 (arXiv 1811.02508), equation 5, without removing the mean.
    """
    reference, estimate = np.asarray(reference, float), np.asarray(estimate, float)
    return snr_db(reference * np.dot(reference, estimate) / np.dot(reference, reference), estimate)


def log_spectral_distance_db(reference, estimate, sample_rate):
    """Root mean square over frequency of the spectrograms' difference in dB, averaged over time, of signals (T,).

    Gray and Markel 1976 (doi 10.1109/TASSP.1976.1162849). Levels below SPECTRUM_FLOOR_DB count as that.
    """
    (_, _, ours), (_, _, theirs) = (spectrogram_db(signal, sample_rate) for signal in (reference, estimate))
    return np.sqrt(((ours - theirs) ** 2).mean(axis=0)).mean()


def frequency_limit(signal, sample_rate):
    """How far up a picture of the signal (T,) should go, Hz: twice where 99 % of its energy lie below, in whole kHz.

    At least 2 kHz, at most the Nyquist frequency.
    """
    window = min(1024, signal.size)
    power = (_magnitudes(signal - signal.mean(), window, window // 2) ** 2).mean(0)
    highest = np.fft.rfftfreq(window, 1 / sample_rate)[np.searchsorted(np.cumsum(power), 0.99 * power.sum())]
    return min(max(2000, 1000 * math.ceil(2 * highest / 1000)), sample_rate / 2)


def read_wav(path):
    """A WAV file as `write_wav` leaves it: signal (T,), float64, and sample rate in Hz. OSError for any other."""
    with open(path, "rb") as file:
        try:
            with warnings.catch_warnings(action="error"):  # of files cut short
                sample_rate, values = scipy.io.wavfile.read(file)
        except Exception as error:  # SciPy raises nearly everything for a broken file
            raise OSError(f"{path}: not a whole WAV file ({error}); write it again") from error
    if values.dtype != np.int16 or values.ndim != 1:
        raise OSError(f"{path}: {values.dtype} samples, shape {values.shape}, where 16-bit mono is needed; convert it")
    return values / PCM_FULL_SCALE, sample_rate


def write_wav(path, signal, sample_rate):
    """Write (T,) as 16-bit mono PCM; scaled down only where it would clip."""
    peak = np.max(np.abs(signal), initial=1.0)
    scipy.io.wavfile.write(path, sample_rate, np.round(np.asarray(signal) / peak * PCM_FULL_SCALE).astype(np.int16))
