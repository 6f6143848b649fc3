"""Relations that hold for every sound: only its samples matter, not how a file stores them."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from compressed import write
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_utils import snr_db
from files import sound_reader
from files.model_file import Restorer
from files.restore_sound import restore_sound
from files.sound_reader import open_sound
from kind import kind_of

RATE = 16000
LOSSLESS = [
    *(("WAV", subtype, "FILE") for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")),
    *(("WAV", subtype, "FILE") for subtype in ("FLOAT", "DOUBLE")),
    *(("WAV", subtype, "BIG") for subtype in ("PCM_16", "FLOAT")),
    *(("AIFF", subtype, "FILE") for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    ("AIFF", "PCM_16", "LITTLE"),
    *(("FLAC", subtype, "FILE") for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("CAF", subtype, "FILE") for subtype in ("PCM_16", "PCM_32", "DOUBLE", "ALAC_16")),
    *(("W64", "PCM_24", "FILE"), ("RF64", "PCM_16", "FILE"), ("AU", "PCM_16", "FILE")),
]
BITS = {"U8": 8, "S8": 8, "16": 16, "24": 24, "32": 32, "FLOAT": 24, "DOUBLE": 52}
LOSSY = [("mp3", "libmp3lame"), ("m4a", "aac"), ("m4a", "alac"), ("opus", "libopus")]


def music(seed, rate, channels=1, seconds=0.4):
    """Return a sum of tones below 3 kHz (T, channels) that rises and falls within the sound."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    frequency, phase = rng.uniform(100, 3000, (5, channels)), rng.uniform(0, 6, (5, channels))
    tones = np.sin(2 * np.pi * frequency * time[:, None, None] + phase).mean(1)
    return 0.9 * tones * np.sin(np.pi * time / seconds)[:, None] ** 2


def read(path):
    with open_sound(path) as sound:
        return np.concatenate(list(sound.blocks()))


def smoothed(windows, observed):
    """A stand-in for a network: each value depends on its neighbors."""
    return np.stack([np.convolve(window, np.hanning(9) / 4, "same") for window in windows])


def restored(folder, signal, rate=RATE):
    source, result = Path(folder) / "in.wav", Path(folder) / "out.wav"
    soundfile.write(source, signal, rate, subtype="DOUBLE")
    model = Restorer(smoothed, 1024, kind_of({"sample_rate": RATE}, 1024))
    restore_sound(model, source, result)
    return read(result)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(LOSSLESS), st.integers(1, 3), st.integers(0, 3000), st.integers(0, 999))
def test_lossless_formats_are_read_to_their_precision(kind, channels, frames, seed):
    container, subtype, endian = kind
    signal = np.random.default_rng(seed).uniform(-0.99, 0.99, (frames + 1, channels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.sound"
        soundfile.write(path, signal, RATE, subtype, endian, container)
        found = read(path)
    assert found.shape == signal.shape
    assert np.abs(found - signal).max() <= 2.0 ** (1 - BITS[subtype.split("_")[-1]])


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(LOSSY), st.sampled_from([16000, 24000, 48000]), st.integers(0, 999))
def test_lossy_formats_are_read_in_time(kind, rate, seed):
    (suffix, codec), signal = kind, music(seed, rate)[:, 0]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / f"a.{suffix}", signal, rate, codec)
        with open_sound(Path(folder) / f"a.{suffix}") as sound:
            found = soxr.resample(np.concatenate(list(sound.blocks()))[:, 0], sound.rate, rate)
    assert abs(found.size - signal.size) < 0.005 * rate
    size = min(found.size, signal.size)
    lag = np.argmax(scipy.signal.correlate(found[:size], signal[:size])) - size + 1
    assert abs(lag) < 0.005 * rate


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([22050, 32000, 44100, 48000, 96000]), st.integers(0, 999))
def test_a_rate_above_the_models_does_not_matter(rate, seed):
    with tempfile.TemporaryDirectory() as folder:
        expected, found = (restored(folder, music(seed, r), r)[:, 0] for r in (RATE, rate))
    found = soxr.resample(found, rate, RATE)[: expected.size]
    assert snr_db(expected, found) > 60


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 3), st.sampled_from([8000, 16000, 44100]), st.integers(0, 999))
def test_channels_do_not_influence_each_other(channels, rate, seed):
    signal = music(seed, rate, channels)
    with tempfile.TemporaryDirectory() as folder:
        together = restored(folder, signal, rate)
        for channel, values in zip(signal.T, together.T):
            np.testing.assert_allclose(values, restored(folder, channel, rate)[:, 0], atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(50, 20_000), st.sampled_from([16000, 22050]), st.integers(0, 999))
def test_the_size_of_blocks_does_not_matter(size, rate, seed):
    signal = music(seed, rate, 2)
    with tempfile.TemporaryDirectory() as folder:
        expected = restored(folder, signal, rate)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sound_reader, "FRAMES_PER_BLOCK", size)
            np.testing.assert_allclose(restored(folder, signal, rate), expected, atol=1e-6)
