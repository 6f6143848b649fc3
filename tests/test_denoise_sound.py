"""Noisy recordings restored: the posterior mean of a file, by a stand-in that draws the tones it knows."""

import io
import types

import numpy as np
import pytest
import soundfile

from audio_utils import snr_db
from files import restore_sound as restore_sound_module
from files.model_file import Restorer
from files.restore_sound import restore_sound
from signals import denoise_sound

RATE, KNOWN = 16000, (220.0, 330.0, 987.0)  # Hz


def tones(rate, seconds=3.0):
    time = np.arange(round(seconds * rate)) / rate
    swell = 0.15 * (1 + 0.3 * np.sin(2 * np.pi * np.outer((0.7, 0.9, 1.1), time)))
    return (swell * np.sin(2 * np.pi * np.outer(KNOWN, time))).sum(0)


def projected(windows):
    """Least squares of what is observed, no zeros, on sines and cosines of the known frequencies."""
    windows = np.asarray(windows, float)
    angle = 2 * np.pi * np.outer(KNOWN, np.arange(windows.shape[1])) / RATE
    basis = np.concatenate([np.sin(angle), np.cos(angle)])
    normal = np.einsum("bn,in,jn->bij", windows != 0, basis, basis) + 1e-6 * np.eye(len(basis))
    return np.linalg.solve(normal, (windows @ basis.T)[..., None])[..., 0] @ basis


MODEL = Restorer(projected, 1024, {"sample_rate": RATE, "rms": 0.4, "sha256": "of recordings"})


def restored(folder, sound, rate, gap=0.02, every=0.25):
    """A sound (T, C) with gaps, written as a file and restored: what comes out, the gaps (T,), what is said."""
    gaps = np.mod(np.arange(len(sound)) / rate - 0.1, every) < gap
    soundfile.write(folder / "in.wav", sound * ~gaps[:, None], rate, "FLOAT")
    said = restore_sound(MODEL, folder / "in.wav", folder / "out.wav")
    result, result_rate = soundfile.read(folder / "out.wav", always_2d=True)
    assert result_rate == rate and result.shape == sound.shape
    return result, gaps, said


@pytest.mark.parametrize("rate", [RATE, 22050])
def test_gaps_are_filled_and_noise_is_taken_out_at_any_rate_and_level(tmp_path, rate):
    tone = tones(rate)
    hiss = np.random.default_rng(0).standard_normal((tone.size, 2)) * tone.std() * 10 ** (-12 / 20)
    clean = tone[:, None] * [1, 0.3]
    result, gaps, said = restored(tmp_path, clean + hiss * [1, 0.3], rate)
    for channel in range(2):
        assert (
            snr_db(clean[:, channel], result[:, channel]) > 22
        )  # 12 of the input without its gaps
        assert snr_db(clean[gaps, channel], result[gaps, channel]) > 18
    assert "noise 12 dB below the sound taken out" in said or "noise 13 dB" in said


def test_a_clean_sound_is_kept_with_what_the_model_cannot_hear(tmp_path):
    """12 kHz is beyond what a model at 16 kHz can draw; an offset is no sound, and stays."""
    time = np.arange(3 * 44100) / 44100
    clean = (tones(44100) + 0.1 * np.sin(2 * np.pi * 12_000 * time) + 0.05)[:, None]
    result, gaps, said = restored(tmp_path, clean, 44100)
    np.testing.assert_allclose(result[~gaps], clean[~gaps], atol=1e-6)
    assert snr_db(clean[gaps] - 0.05, result[gaps] - 0.05) > 25 and "no noise to speak of" in said


def test_where_a_file_is_cut_for_restoring_is_not_heard(tmp_path, monkeypatch):
    noisy = (tones(RATE) + 0.03 * np.random.default_rng(1).standard_normal(3 * RATE))[:, None]
    whole, *_ = restored(tmp_path, noisy, RATE)
    monkeypatch.setattr(denoise_sound, "PIECE_SECONDS", 0.5)
    pieces, *_ = restored(tmp_path, noisy, RATE)
    assert snr_db(whole, pieces) > 40


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_a_file_shorter_than_a_frame_is_restored(tmp_path, seconds):
    sound = tones(RATE, seconds)[:, None]
    result, _, _ = restored(tmp_path, sound, RATE)
    assert np.isfinite(result).all() and snr_db(sound, result) > 20


def test_what_the_network_is_shown_of_a_part_is_of_that_place(monkeypatch):
    monkeypatch.setattr(denoise_sound, "PILOT_SECONDS", 1)
    monkeypatch.setattr(
        denoise_sound.noise,
        "tried",
        lambda sound, mask, rate, redraw: (redraw(sound, mask).size, -99.0, None),
    )
    sound, seen = np.random.default_rng(0).standard_normal(4 * 32000), []
    gaps, hidden = np.array([[80_000, 80_641]]), np.array([[82_000, 83_000]])
    sound[80_000:80_641] = 0

    def draw(low, unseen, first):
        seen.append((low, unseen, first))
        return low

    denoise_sound.Denoiser(
        lambda first, end: sound[first:end], gaps, hidden, sound.size, (32000, RATE), draw
    )
    ((low, unseen, first),) = seen
    assert first < 40_000 < 41_500 < first + low.size and not low[unseen].any()
    np.testing.assert_array_equal(
        np.flatnonzero(np.diff(unseen)) + 1 + first, [40_000, 40_321, 41_000, 41_500]
    )


def test_a_part_has_the_levels_of_its_place_and_what_is_added_to_it_is_missing(monkeypatch):
    seen = []

    def restored(read, start, samples):
        seen.append((start, *read(0, samples)))
        return [seen[-1][1]]

    model = types.SimpleNamespace(input_size=1024, metadata={"sample_rate": RATE})
    channel, none = types.SimpleNamespace(model=model, restored=restored), np.zeros((0, 2), int)
    monkeypatch.setattr(denoise_sound.noise, "calibrate", lambda *given: (None, -99.0, None))
    denoiser = restore_sound_module._denoiser(
        channel, io.BytesIO(bytes(4 * 9999)), none, none, 9999, RATE
    )
    assert denoiser.draw(np.ones(300), np.zeros(300, bool), 777).tolist() == [1] * 300
    ((start, values, mask),) = seen
    assert (
        start == 777
        and values.size == mask.size == 1024
        and mask[300:].all()
        and not mask[:300].any()
    )


def test_the_noisiest_channels_noise_is_told(tmp_path):
    tone = tones(RATE)
    hiss = np.random.default_rng(0).standard_normal(tone.size) * tone.std() * 10 ** (-12 / 20)
    *_, said = restored(tmp_path, np.stack([tone, tone + hiss], 1), RATE)
    assert "noise 12 dB below the sound taken out" in said or "noise 13 dB" in said
