"""Sounds: notes and their synthesis, spectrograms, scores, WAV files.

Signals are float arrays with full scale at -1 and 1. Long ones are (T,), batches of windows (B, N).
"""

import argparse
import dataclasses
import math
import re

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast
from numpy.lib.stride_tricks import sliding_window_view

from harness import UserError
from harness.quiet_tensorflow import tf
from random_numbers import normal

C_MAJOR = ("C4", "D4", "E4", "F4", "G4", "A4", "B4")
SAMPLE_RATES = (1000, 768_000)  # Hz; rates outside this range come from broken files
TONE_AMPLITUDE = 0.5  # peak
NOISE_STD = 0.2  # white noise: an SNR of 4.95 dB, like a breathy flute
RMS = math.hypot(TONE_AMPLITUDE / math.sqrt(2), NOISE_STD)  # level of notes and scaled recordings
NOTE_SECONDS = 0.5  # duration of a note
FADE_SECONDS = 0.002  # duration of a note's fades, long enough to avoid clicks
SPECTRUM_FLOOR_DB = -80.0
SILENCE_DB = -50.0  # relative to a sound's mean power; its RMS excludes quieter sections
PCM_FULL_SCALE = 32767  # 16 bits

# Relative amplitude, and decay in 1/s, of each partial. Partial n has n times the frequency and
# phase of the first, so a note's waveform always has the same shape.
TIMBRES = {
    "sine": [(1, 0)],
    "harmonic": [(1 / number, 0) for number in range(1, 7)],
    # The first partial falls by 13 dB in half a second, the sixth by 78 dB.
    "plucked": [(1 / number, 3 * number) for number in range(1, 7)],
}


@dataclasses.dataclass(frozen=True)
class Notes:
    """The built-in sounds. `files.sound_files.Recordings` has the same interface."""

    notes: tuple = C_MAJOR
    timbre: str = "sine"
    sample_rate: int = 16000  # Hz
    window: int = 1024  # samples

    @property
    def title(self):
        name = "The scale of C major" if self.notes == C_MAJOR else " ".join(self.notes)
        return name if self.timbre == "sine" else f"{name}, {self.timbre}"

    @property
    def metadata(self):
        """Values to store in the model file."""
        notes, rate, timbre = list(self.notes), self.sample_rate, self.timbre
        return {"notes": notes, "sample_rate": rate, "timbre": timbre, "rms": RMS}

    @property
    def provenance(self):
        return {"source": "the built-in notes"}

    def check(self):
        """Raise a UserError if a note has under one period per window or is not below Nyquist."""
        low, high = self.sample_rate / self.window, self.sample_rate / 2
        for note in self.notes:
            if not low <= (frequency := note_frequency(note)) < high:
                expected = f"must be from {low:.5g} to below {high:.5g} Hz"
                got = f"got {note}, {frequency:.5g} Hz"
                raise UserError(f"--notes: {expected}, {got}; change it, --window or --sample-rate")

    def windows(self, part, count, seed):
        """Sample windows of notes of NOTE_SECONDS, at random times and with random phase.

        Returns tone (count, window), clean (count, window), which is tone plus white noise, and the
        notes' index (count,). `part` is ignored, because random training and held-out windows
        differ anyway. `seed` is a pair of integers. This method also works in a `tf.function`.
        """
        note_seed, phase_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
        index = tf.random.stateless_uniform((count,), note_seed, 0, len(self.notes), tf.int32)
        phase = tf.random.stateless_uniform((count, 1), phase_seed, 0, 2 * np.pi)
        latest = NOTE_SECONDS - self.window / self.sample_rate
        age_seed = tf.random.fold_in(phase_seed, 1)
        age = tf.random.stateless_uniform((count, 1), age_seed, 0, latest)  # s, at the first sample
        # A partial of any phase and age is a weighted sum of its sine and cosine in the basis. So
        # one matrix product gives all windows, which is faster than a sine per sample.
        amplitudes, basis = zip(*(note_basis(note, self, self.window) for note in self.notes))
        decays = np.array(TIMBRES[self.timbre], np.float32)[:, 1]  # (H,)
        number = np.arange(1, decays.size + 1, dtype=np.float32)  # (H,)
        level = tf.gather(np.float32(amplitudes), index) * tf.exp(-decays * age)  # (count, H)
        weights = [level * tf.cos(number * phase), level * tf.sin(number * phase)]
        weights = tf.concat(weights, axis=1)  # (count, 2 H)
        played = tf.one_hot(index, len(self.notes))  # (count, notes)
        weights = tf.reshape(played[:, :, None] * weights[:, None], (count, -1))
        tone = weights @ np.concatenate(basis).astype(np.float32)
        clean = tone + NOISE_STD * normal((count, self.window), noise_seed)
        return tone, clean, index

    def long(self, seed):
        """Play the notes as a scale. Returns tone (T,) and clean (T,), which is tone plus noise.

        Each note lasts NOTE_SECONDS and is faded in and out. The phase is continuous from note to
        note, like that of an oscillator. `seed` is passed to `numpy.random.default_rng`.
        """
        rng = np.random.default_rng(seed)
        rate, notes = self.sample_rate, self.notes
        samples = round(NOTE_SECONDS * rate)
        frequency = np.repeat([note_frequency(note) for note in notes], samples)
        angle = 2 * np.pi * (rng.random() + np.cumsum(frequency) / rate)
        amplitudes = np.array([partials(note, self)[0] for note in notes])  # (notes, H)
        tone = np.zeros(angle.size)
        for partial, (_, decay) in enumerate(TIMBRES[self.timbre]):
            envelope = np.exp(-decay * np.arange(samples) / rate)
            level = np.outer(amplitudes[:, partial], envelope).ravel()
            tone += level * np.sin((partial + 1) * angle)
        tone *= np.tile(note_fades(samples, rate), len(notes))
        return tone, tone + NOISE_STD * rng.standard_normal(tone.size)


def note_frequency(name):
    """Return the frequency in Hz of a note such as "C4", "F#3" or "Bb5".

    The tuning is equal temperament with A4 = 440 Hz. Raises ValueError for any other name.
    """
    parts = re.fullmatch(r"([A-G])([#b]?)(-?\d)", name)
    if not parts:
        raise ValueError(f"must be notes such as C4, F#3 or Bb5, got {name!r}")
    letter, accidental, octave = parts.groups()
    semitone = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter]
    semitone += {"#": 1, "b": -1, "": 0}[accidental]
    return 440.0 * 2 ** ((semitone - 9 + 12 * (int(octave) - 4)) / 12)


def note_names(text):
    """Convert "C4,E4", or a sequence of names, to a tuple. Raises ArgumentTypeError if invalid."""
    try:
        names = tuple(text.split(",") if isinstance(text, str) else text)
        frequencies = {note_frequency(name) for name in names}
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(error) from error
    if len(frequencies) < max(1, len(names)):
        raise argparse.ArgumentTypeError(f"must be different notes, got {text!r}")
    return names


def partials(note, sounds):
    """Return initial peak amplitudes (H,) and decays (H,), in 1/s, of a note's partials.

    Partials at or above the Nyquist frequency have amplitude 0. Over NOTE_SECONDS, the note has the
    RMS of a sinusoid of TONE_AMPLITUDE.
    """
    amplitudes, decays = np.array(TIMBRES[sounds.timbre], float).T
    frequencies = np.arange(1, decays.size + 1) * note_frequency(note)
    amplitudes[frequencies >= sounds.sample_rate / 2] = 0
    # exprel(-x) = (1 - exp(-x)) / x is the mean of exp(-2 decay t), where x = 2 decay NOTE_SECONDS.
    power = amplitudes**2 * scipy.special.exprel(-2 * NOTE_SECONDS * decays)
    return TONE_AMPLITUDE * amplitudes / np.sqrt(power.sum()), decays


def note_basis(note, sounds, samples):
    """Return the amplitudes (H,) of a note's partials and their basis (2 H, samples).

    The basis has all sines, then all cosines. They decay from amplitude 1 at time 0.
    """
    amplitudes, decays = partials(note, sounds)
    time = np.arange(samples) / sounds.sample_rate
    angle = 2 * np.pi * note_frequency(note) * np.outer(np.arange(1, decays.size + 1), time)
    envelope = np.exp(-np.outer(decays, time))
    return amplitudes, np.concatenate([envelope * np.sin(angle), envelope * np.cos(angle)])


def note_fades(samples, sample_rate):
    """Return a gain (samples,) with raised-cosine fades of FADE_SECONDS at both ends."""
    rise = np.clip((np.arange(samples) + 0.5) / sample_rate / FADE_SECONDS, 0, 1)
    return np.sin(0.5 * np.pi * np.minimum(rise, rise[::-1])) ** 2


def runs(mask):
    """Return start and (exclusive) end of each run of ones in a mask: (T,) -> (n, 2)."""
    return np.flatnonzero(np.diff(np.pad(np.asarray(mask, int), 1))).reshape(-1, 2)


def cut(signal, window):
    """Cut (T,) into consecutive windows (ceil(T / window), window), the last padded with zeros."""
    return np.pad(signal, (0, -signal.size % window)).reshape(-1, window)


def one_after_the_other(signals, sample_rate):
    """Join short sounds (count, N) to one (T,), each faded and followed by 0.1 s of silence."""
    faded = signals * note_fades(signals.shape[1], sample_rate)
    return np.pad(faded, ((0, 0), (0, round(0.1 * sample_rate)))).ravel()


def _magnitudes(signal, window, hop):
    """Return the magnitude spectra of Hann-tapered frames: (T,) -> (K, window // 2 + 1).

    The taper sums to 1, so a constant of 1 has magnitude 1.
    """
    taper = np.hanning(window + 1)[:-1]
    frames = sliding_window_view(signal, window)[::hop]
    return np.abs(np.fft.rfft(frames * (taper / taper.sum())))


def spectrogram_db(signal, sample_rate):
    """Return frequencies (F,) in Hz, times (K,) in s and levels (F, K) of a signal (T,).

    Levels are in dB relative to a full-scale sine. Hann windows overlap by three quarters. They
    have 1,024 samples, or a quarter of the signal if that is less.
    """
    window = min(1024, signal.size // 4)
    hop = window // 4
    magnitudes = _magnitudes(signal, window, hop)
    times = (window / 2 + hop * np.arange(len(magnitudes))) / sample_rate
    levels = 20 * np.log10(np.maximum(2 * magnitudes.T, 10 ** (SPECTRUM_FLOOR_DB / 20)))
    return np.fft.rfftfreq(window, 1 / sample_rate), times, levels


def snr_db(reference, estimate):
    """Return the signal-to-noise ratio in dB, where the noise is the error; nan without samples."""
    reference = np.asarray(reference, float)
    if not reference.size:
        return float("nan")
    error = reference - np.asarray(estimate, float)
    return 10 * np.log10(np.vdot(reference, reference) / np.vdot(error, error))


def si_sdr_db(reference, estimate):
    """Return the scale-invariant signal-to-distortion ratio in dB of two signals (T,).

    See Le Roux et al. 2019 (arXiv 1811.02508), equation 5. The mean is not removed.
    """
    reference, estimate = np.asarray(reference, float), np.asarray(estimate, float)
    return snr_db(reference * np.dot(reference, estimate) / np.dot(reference, reference), estimate)


def log_spectral_distance_db(reference, estimate, sample_rate):
    """Return the log-spectral distance in dB of two signals (T,).

    This is the RMS level difference over frequency, averaged over time (Gray and Markel 1976,
    doi 10.1109/TASSP.1976.1162849). Levels below SPECTRUM_FLOOR_DB are raised to it.
    """
    expected, levels = (spectrogram_db(each, sample_rate)[2] for each in (reference, estimate))
    return np.sqrt(((expected - levels) ** 2).mean(axis=0)).mean()


def frequency_limit(signal, sample_rate):
    """Return the upper frequency limit in Hz for plotting the spectrogram of a signal (T,).

    It is twice the frequency that has 99% of the energy below it, rounded up to whole kHz.
    The limit is at least 2 kHz and at most the Nyquist frequency.
    """
    window = min(1024, signal.size)
    power = (_magnitudes(signal - signal.mean(), window, window // 2) ** 2).mean(0)
    highest = np.searchsorted(np.cumsum(power), 0.99 * power.sum())
    frequency = np.fft.rfftfreq(window, 1 / sample_rate)[highest]
    return min(max(2000, 1000 * math.ceil(2 * frequency / 1000)), sample_rate / 2)


def write_wav(path, signal, sample_rate):
    """Write a signal (T,) as 16-bit mono PCM, scaled down if it would clip."""
    peak = np.max(np.abs(signal), initial=1.0)
    pcm = np.round(np.asarray(signal) / peak * PCM_FULL_SCALE).astype(np.int16)
    scipy.io.wavfile.write(path, sample_rate, pcm)
