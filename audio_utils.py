"""Sounds: notes, synthesis, WAV in and out, spectrogram, scores.

Signals are float arrays with full scale at -1 and 1, long ones (T,), batches of windows (B, N).
"""

import dataclasses
import math
import re

import numpy as np
import scipy  # its parts load when first used: --help needs none of them
from numpy.lib.stride_tricks import sliding_window_view

from harness.quiet_tensorflow import tf
from random_numbers import normal

C_MAJOR = ("C4", "D4", "E4", "F4", "G4", "A4", "B4")
SAMPLE_RATES = (1000, 768_000)  # Hz; a file with a rate outside this range has a broken header
TONE_AMPLITUDE = 0.5  # peak
NOISE_STD = 0.2  # with the amplitude above: 4.95 dB SNR, a breathy flute
RMS = math.hypot(
    TONE_AMPLITUDE / math.sqrt(2), NOISE_STD
)  # of notes with their noise, and what others are scaled to
NOTE_SECONDS = 0.5  # of each note of a scale
FADE_SECONDS = 0.002  # at both ends of each note of a scale: long enough not to click
SPECTRUM_FLOOR_DB = -80.0
PCM_FULL_SCALE = 32767  # 16 bits

# The partials of a note, at once, twice, ... its frequency: each with its relative amplitude and its decay in 1/s.
# All begin at the same point of their phase, so that a note has one waveform, wherever in time.
TIMBRES = {
    "sine": [(1, 0)],
    "harmonic": [(1 / number, 0) for number in range(1, 7)],
    "plucked": [
        (1 / number, 3 * number) for number in range(1, 7)
    ],  # after half a second -13 dB, the sixth -78 dB
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
    power = amplitudes**2 * scipy.special.exprel(
        -2 * NOTE_SECONDS * decays
    )  # the mean of exp(-2 decay time)
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


def noisy_notes(notes, count, samples, sample_rate, seed, timbre="sine"):
    """Windows of notes drawn at random, each of random phase: their tone, the same with white noise, which note.

    A window begins anywhere within a note of NOTE_SECONDS. Returns tone (count, samples), clean (count, samples),
    index into `notes` (count,). TensorFlow, stateless: the same `seed` (a pair of integers) gives the same windows.
    """
    note_seed, phase_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    index = tf.random.stateless_uniform((count,), note_seed, 0, len(notes), tf.int32)
    phase = tf.random.stateless_uniform((count, 1), phase_seed, 0, 2 * np.pi)
    latest = NOTE_SECONDS - samples / sample_rate
    age = tf.random.stateless_uniform(
        (count, 1), tf.random.fold_in(phase_seed, 1), 0, latest
    )  # s, at the start
    # Of any phase and age, a partial is a mixture of its sine and its cosine as they decay from time 0: one product of
    # matrices for all, instead of a sine for each sample.
    amplitudes, basis = zip(*(note_basis(note, timbre, sample_rate, samples) for note in notes))
    number = np.arange(1, len(TIMBRES[timbre]) + 1, dtype=np.float32)  # (H,)
    decays = np.array(TIMBRES[timbre], np.float32)[:, 1]
    level = tf.gather(np.array(amplitudes, np.float32), index) * tf.exp(-decays * age)  # (count, H)
    weights = tf.concat(
        [level * tf.cos(number * phase), level * tf.sin(number * phase)], axis=1
    )  # (count, 2 H)
    which = tf.one_hot(index, len(notes))  # (count, notes)
    weights = tf.reshape(which[:, :, None] * weights[:, None], (count, -1))
    tone = weights @ np.concatenate(basis).astype(np.float32)
    clean = tone + NOISE_STD * normal((count, samples), noise_seed)
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
        level = np.outer(
            amplitudes[:, partial], np.exp(-decay * np.arange(samples) / sample_rate)
        ).ravel()
        tone += level * np.sin((partial + 1) * angle)
    tone *= np.tile(note_fades(samples, sample_rate), len(notes))
    return tone, tone + NOISE_STD * rng.standard_normal(tone.size)


@dataclasses.dataclass(frozen=True)
class Notes:
    """The built-in sounds. Recordings (files/sound_files.py) have the same interface."""

    notes: tuple = C_MAJOR
    timbre: str = "sine"
    sample_rate: int = 16000
    window: int = 1024

    @property
    def note_options(self):
        return {"notes": self.notes, "sample_rate": self.sample_rate, "timbre": self.timbre}

    @property
    def title(self):
        name = "The scale of C major" if self.notes == C_MAJOR else " ".join(self.notes)
        return name if self.timbre == "sine" else f"{name}, {self.timbre}"

    @property
    def metadata(self):
        """What a model trained on them must know."""
        return {**self.note_options, "notes": list(self.notes), "rms": RMS}

    @property
    def provenance(self):
        return {"source": "the built-in notes"}

    def windows(self, part, count, seed):
        """Tone, clean (count, window) and which note (count,). No window is ever drawn twice, whatever the part."""
        return noisy_notes(count=count, samples=self.window, seed=seed, **self.note_options)

    def long(self, seed):
        """The scale: tone (T,) and clean (T,)."""
        return noisy_scale(
            seconds=NOTE_SECONDS, rng=np.random.default_rng(seed), **self.note_options
        )


def note_fades(samples, sample_rate):
    """Amplitude that rises from 0 to 1 in FADE_SECONDS and falls back at the end, half a cosine each: (samples,)."""
    rise = np.clip((np.arange(samples) + 0.5) / sample_rate / FADE_SECONDS, 0, 1)
    return np.sin(0.5 * np.pi * np.minimum(rise, rise[::-1])) ** 2


def runs(mask):
    """First sample and end of each run of ones in a mask (T,): (n, 2)."""
    return np.flatnonzero(np.diff(np.pad(np.asarray(mask, int), 1))).reshape(-1, 2)


def cut(signal, window):
    """Consecutive windows side by side, the last filled up with zeros: (T,) -> (ceil(T / window), window)."""
    return np.pad(signal, (0, -signal.size % window)).reshape(-1, window)


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
    (_, _, ours), (_, _, theirs) = (
        spectrogram_db(signal, sample_rate) for signal in (reference, estimate)
    )
    return np.sqrt(((ours - theirs) ** 2).mean(axis=0)).mean()


def frequency_limit(signal, sample_rate):
    """How far up a picture of the signal (T,) should go, Hz: twice where 99 % of its energy lie below, in whole kHz.

    At least 2 kHz, at most the Nyquist frequency.
    """
    window = min(1024, signal.size)
    power = (_magnitudes(signal - signal.mean(), window, window // 2) ** 2).mean(0)
    highest = np.fft.rfftfreq(window, 1 / sample_rate)[
        np.searchsorted(np.cumsum(power), 0.99 * power.sum())
    ]
    return min(max(2000, 1000 * math.ceil(2 * highest / 1000)), sample_rate / 2)


def write_wav(path, signal, sample_rate):
    """Write (T,) as 16-bit mono PCM; scaled down only where it would clip."""
    peak = np.max(np.abs(signal), initial=1.0)
    scipy.io.wavfile.write(
        path, sample_rate, np.round(np.asarray(signal) / peak * PCM_FULL_SCALE).astype(np.int16)
    )
