"""Denoised recordings, with a stand-in for the network that fits the tones it knows."""

import io
import re

import numpy as np
import pytest
import scipy
import soundfile

from audio_utils import snr_db
from files.model_file import Restorer
from files.restore_sound import _Channel, restore_sound
from kind import kind_of
from signals import denoise_sound

RATE, KNOWN = 8000, (220.0, 330.0, 987.0)  # Hz


def tones(rate, seconds=2.0):
    time = np.arange(round(seconds * rate)) / rate
    swell = 0.15 * (1 + 0.3 * np.sin(2 * np.pi * np.outer((0.7, 0.9, 1.1), time)))
    return (swell * np.sin(2 * np.pi * np.outer(KNOWN, time))).sum(0)


def projected(windows, observed):
    """Least-squares fit of the known frequencies to the observed samples: (B, N), (B, N)."""
    windows, observed = np.asarray(windows, float), np.asarray(observed, float)
    angle = 2 * np.pi * np.outer(KNOWN, np.arange(windows.shape[1])) / RATE
    basis = np.concatenate([np.sin(angle), np.cos(angle)])
    normal = (observed[:, None] * basis) @ basis.T + 1e-6 * np.eye(len(basis))
    weights = np.linalg.solve(normal, ((observed * windows) @ basis.T)[..., None])[..., 0]
    return weights @ basis


def restored(folder, sound, rate, gap=0.02, every=0.25, reconstruct=projected, window=512):
    """Restore a file of a sound (T, C) with gaps. Returns the result, the gaps (T,), and a line."""
    metadata = {"sample_rate": RATE, "rms": 0.4, "sha256": "of recordings"}
    model = Restorer(reconstruct, window, kind_of(metadata, window))
    gaps = np.mod(np.arange(len(sound)) / rate - 0.1, every) < gap
    soundfile.write(folder / "in.wav", sound * ~gaps[:, None], rate, "FLOAT")
    message = restore_sound(model, folder / "in.wav", folder / "out.wav")
    result, result_rate = soundfile.read(folder / "out.wav", always_2d=True)
    assert result_rate == rate and result.shape == sound.shape
    return result, gaps, message


@pytest.mark.parametrize("rate, seconds", [(RATE, 2.0), (11025, 2.0), (RATE, 0.3)])
def test_gaps_are_filled_and_noise_removed_at_any_rate_and_level(tmp_path, rate, seconds):
    tone = tones(rate, seconds)
    hiss = np.random.default_rng(0).standard_normal((tone.size, 2)) * tone.std() * 10 ** (-12 / 20)
    clean = tone[:, None] * [1, 0.3]
    result, gaps, message = restored(tmp_path, clean + hiss * [1, 0.3], rate)
    for channel in range(2):
        assert snr_db(clean[:, channel], result[:, channel]) > 22  # the input without gaps: 12
        assert snr_db(clean[gaps, channel], result[gaps, channel]) > 18
    assert re.search("removed noise 1[23] dB below the sound", message)


def test_a_clean_sound_changes_only_in_its_gaps(tmp_path):
    """A tone of 6 kHz, above the Nyquist frequency of the model, and an offset are kept."""
    time = np.arange(2 * 22050) / 22050
    clean = (tones(22050) + 0.1 * np.sin(2 * np.pi * 6000 * time) + 0.05)[:, None]
    result, gaps, message = restored(tmp_path, clean, 22050)
    np.testing.assert_allclose(result[~gaps], clean[~gaps], atol=1e-6)
    assert snr_db(clean[gaps] - 0.05, result[gaps] - 0.05) > 25
    assert "no steady noise found within 40 dB of the sound" in message


@pytest.mark.parametrize("hum, seconds", [(0.0, 2), (0.2, 4)])
def test_pieces_join_without_a_seam(tmp_path, monkeypatch, hum, seconds):
    noisy = tones(RATE, seconds) + hum * np.sin(2 * np.pi * 50 * np.arange(seconds * RATE) / RATE)
    noisy = (noisy + 0.03 * np.random.default_rng(1).standard_normal(noisy.size))[:, None]
    whole, _, message = restored(tmp_path, noisy, RATE)
    assert ("removed hum at 50" in message) == (hum > 0)
    monkeypatch.setattr(denoise_sound, "PIECE", 16)
    pieces, _, in_pieces = restored(tmp_path, noisy, RATE)
    assert snr_db(whole, pieces) > 40
    # The power of the tones is 0.035, that of the noise 0.0009. All pieces count.
    for said in (message, in_pieces):
        assert re.search(r"noise 1[67] dB below the sound (from 9.% of the sound )?\(", said)


def test_digital_silence_in_a_noisy_recording_stays(tmp_path):
    """Frames of a spectrogram would spread the sound beside it."""
    noisy = tones(RATE) + 0.03 * np.random.default_rng(1).standard_normal(2 * RATE)
    noisy[6000:9000] = 0
    result, gaps, message = restored(tmp_path, noisy[:, None], RATE)
    assert "removed noise" in message and gaps[6000:9000].any()
    assert not result[6000:9000].any() and result[5900:6000].all()


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_a_file_shorter_than_a_frame_is_restored(tmp_path, seconds):
    sound = tones(RATE, seconds)[:, None]
    result, _, _ = restored(tmp_path, sound, RATE)
    assert np.isfinite(result).all() and snr_db(sound, result) > 20


def test_the_network_sees_each_part_at_its_place():
    """Each call shows a part of the sound, except gaps and silences."""
    time = np.arange(29 * 8000) / 8000
    sound = np.sin(2 * np.pi * (100 * time + 15 * time**2))  # a chirp: no two places are alike
    sound *= np.select([time < 2, time >= 28], [0.05, 0.2], 1)  # almost silent; quiet
    gaps, silences = np.array([[160_000, 160_641]]), np.array([[164_000, 166_000]])
    sound[160_000:160_641] = 0
    missing = np.zeros(sound.size // 2, bool)
    missing[80_000:80_321] = missing[82_000:83_000] = True
    calls, heard, seen = [], [], np.zeros(missing.size, bool)
    model = Restorer(None, 256, kind_of({"sample_rate": 4000, "rms": 0.4}, 256))
    channel = _Channel(model, io.BytesIO(sound.tobytes()), 8000, sound.size, gaps, silences)

    def network(part, mask):
        match = scipy.signal.correlate(np.pad(sound[::2], part.size), part, method="fft")
        calls.append((part[:-1], mask[:-1], np.argmax(match) - 2 * part.size + 1))
        return part

    channel._network = network
    assert sum(map(len, channel.denoised())) == sound.size
    excerpts, artificial = denoise_sound.EXCERPTS, 0
    for number, (part, mask, first) in enumerate(calls):
        place = slice(first, first + part.size)
        assert not part[mask].any()
        shown = sound[::2][place][~mask]
        level = (shown @ part[~mask]) / (shown @ shown)  # that of the part is 1
        assert snr_db(level * shown, part[~mask]) > 20
        if number < excerpts:
            assert mask[missing[place]].all()
            heard.append(first / 4000)
            artificial += mask.sum() - missing[place].sum()
        else:
            np.testing.assert_array_equal(mask, missing[place])
            seen[place] = True
    assert seen.all() and artificial > 1000
    # Noise is estimated from ten parts of 2 s throughout the sound, but not where it is silent.
    np.testing.assert_allclose(heard, np.linspace(2, 28, 14)[[0, 1, 2, 4, 5, 7, 8, 10, 11, 13]])


def test_each_part_has_the_level_of_its_place(tmp_path, monkeypatch):
    """Gaps too close for autoregression are filled by a network that knows one level only."""
    monkeypatch.setattr(denoise_sound, "PIECE", 16)

    def at_trained_level(windows, observed):
        drawn = projected(windows, observed)
        return 0.4 * drawn / np.maximum(np.sqrt(np.mean(drawn**2, 1, keepdims=True)), 1e-9)

    time = np.arange(2 * RATE) / RATE
    steady = np.sin(2 * np.pi * np.outer(KNOWN, time)).sum(0)
    sound = (np.where(time < 1, 0.05, 0.2) * steady)[:, None]
    result, gaps, _ = restored(
        tmp_path, sound, RATE, gap=0.024, every=0.04, reconstruct=at_trained_level
    )
    for half in (gaps & (abs(time - 0.5) < 0.4), gaps & (abs(time - 1.5) < 0.4)):
        assert snr_db(sound[half], result[half]) > 10


def test_samples_beyond_a_short_file_count_as_missing(tmp_path):
    """So they do in the rest of a spectrogram's frame, 1024 samples."""
    size, window = 800, 1600
    shown = []

    def reconstruct(windows, observed):
        shown.append(observed)
        return projected(windows, observed)

    sound = tones(RATE, size / RATE)[:, None]
    restored(tmp_path, sound, RATE, reconstruct=reconstruct, window=window)
    for observed in map(np.asarray, shown):
        assert observed.shape[1] == window
        assert not observed[:, size:].any() and observed[:, : size - 50].any(1).all()


def test_the_message_is_true_of_every_channel(tmp_path):
    tone = tones(RATE)
    hiss = np.random.default_rng(0).standard_normal(tone.size) * tone.std() * 10 ** (-12 / 20)
    half = hiss * (np.arange(tone.size) < tone.size / 2)
    sound = np.stack([tone, tone + hiss, 0.1 * tone + hiss, tone + half, 0 * tone], 1)
    *_, message = restored(tmp_path, sound, RATE)
    clean, noisy, noisier, in_part = message.split("missing, ")[1].split(", removed ")
    assert re.fullmatch("no steady noise found .* in channel 1", clean)
    assert re.search("noise 1[23] dB below the sound .* in channel 2", noisy)
    assert re.search("noise [78] dB above the sound .* in channel 3", noisier)
    assert re.search(
        "noise 1[23] dB below the sound from (4|5).% .* in channel 4, silent in channel 5", in_part
    )
