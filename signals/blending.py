"""From one sound to another through latent space."""

import os

import numpy as np

from audio_utils import TONE_AMPLITUDE, Notes, noisy_notes, note_frequency
from files import sound_files
from harness import UserError

SECONDS = 4  # the first quarter and the last stay at the ends
HOPS_A_WINDOW = 64  # many, so that what the phases of two notes make of each other averages out
LOWEST_PITCH = 20  # Hz


def blend(model, names):
    """From one note or sound file to another: (T,), and a line on it: the pitches asked for and reached, its level.

    UserError for what is neither, too short or silent.
    """
    rate = model.metadata["sample_rate"]
    room = model.input_size + rate // LOWEST_PITCH + 1
    ends = [sound_end(name, room, model) for name in names]
    sound = glide(model, ends, rate)
    parts = sound[: sound.size // 8], sound[-sound.size // 8 :]
    levels = 10 * np.log10(
        np.convolve(sound**2, np.full(rate // 20, 20 / rate), "valid")
    )  # over 50 ms
    asked, reached = ([pitch(each, rate) for each in sounds] for sounds in (ends, parts))
    return sound, (
        f"{SECONDS} s from {reached[0]:.0f} to {reached[1]:.0f} Hz (asked: {asked[0]:.0f} and {asked[1]:.0f}), "
        f"level {np.min(levels) - levels[0]:+.1f} to {np.max(levels) - levels[0]:+.1f} dB relative to the beginning"
    )


def sound_end(name, samples, model):
    """One end of a blend: a note as in training, or a sound file's loudest part: (samples,) at a note's level."""
    rate = model.metadata["sample_rate"]
    try:
        note_frequency(name)
        sounds = Notes((name,), model.metadata.get("timbre", "sine"), rate, samples)
        signal = noisy_notes(sounds, 1, (0, 0))[0].numpy()[0]
    except ValueError:
        if not os.path.isfile(name):
            raise UserError(f"{name}: neither a note such as C4 nor a sound file") from None
        values = np.concatenate([np.zeros(0), *sound_files.decode(name, rate)])
        if values.size < samples:
            raise UserError(
                f"{name}: shorter than {samples / rate:.2g} s; give another sound"
            ) from None
        energy = np.cumsum(np.pad((values - values.mean()) ** 2, (1, 0)))
        loudest = np.argmax(energy[samples:] - energy[:-samples])
        signal = values[loudest : loudest + samples] - values.mean()
        if np.sqrt(np.mean(signal**2)) < sound_files.LEAST_RMS:
            raise UserError(f"{name}: silent; give another sound") from None
    return signal * (TONE_AMPLITUDE / np.sqrt(2 * np.mean(signal**2)))


def pitch(signal, rate):
    """Frequency of the strongest partial of a signal (T,), Hz."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(signal.size), 16 * signal.size))
    return max(LOWEST_PITCH, np.argmax(spectrum) * rate / (16 * signal.size))


def glide(model, ends, rate):
    """The way from one sound to another through latent space: ends, two of (samples,), with a period to spare -> (T,).

    As in NSynth (Engel et al. 2017, arXiv 1704.01279), but here the code of a window holds its phase too, and windows
    decoded with unrelated phases would cancel. So the codes mixed at each place are those of both ends at the phase
    they would have there had they gone on all the time. Mixtures are decoded at a lower level, windows are therefore
    brought to one level, overlapped and added under a Hann taper, and so is the sum. Mixed linearly: spherically
    (White 2016, arXiv 1609.04468) no more of the energy is in the two notes (97.8 % half-way, linearly 98.4 %).
    """
    window, samples = model.input_size, SECONDS * rate
    taper, level = np.hanning(window + 2)[1:-1], np.sqrt(np.mean(ends[0] ** 2))
    places = np.arange(
        0, samples + window, max(1, window // HOPS_A_WINDOW)
    )  # begins and ends a window outside
    codes = []
    for end in ends:
        period = rate / pitch(end, rate)
        starts = np.round(places % period).astype(int)
        codes.append(
            model.encode(end[starts[:, None] + np.arange(window)].astype(np.float32))[0].numpy()
        )
    shares = np.clip(2 * (places - window / 2) / samples - 0.5, 0, 1)[:, None]
    decoded = model.expectation(
        ((1 - shares) * codes[0] + shares * codes[1]).astype(np.float32)
    ).numpy()
    decoded *= taper / np.sqrt(np.mean(decoded**2, axis=1, keepdims=True))
    sound = np.zeros(samples + 3 * window)
    for place, values in zip(places, decoded):
        sound[place : place + window] += values
    power = np.convolve(sound**2, taper / taper.sum(), "same")
    return (level * sound / np.sqrt(np.maximum(power, 1e-12)))[window : window + samples]
