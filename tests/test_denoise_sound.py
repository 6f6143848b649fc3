"""Noisy recordings restored: the posterior mean of a file, by a stand-in that draws the tones it knows."""

import numpy as np
import pytest
import soundfile

from audio_utils import snr_db
from media import denoise_sound
from media.model_file import Restorer
from media.restore_sound import restore_sound

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


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_gaps_are_filled_and_noise_is_taken_out_at_any_rate_and_level(tmp_path, rate):
    tone = tones(rate)
    hiss = np.random.default_rng(0).standard_normal((tone.size, 2)) * tone.std() * 10 ** (-12 / 20)
    clean = tone[:, None] * [1, 0.3]
    result, gaps, said = restored(tmp_path, clean + hiss * [1, 0.3], rate)
    for channel in range(2):
        assert snr_db(clean[:, channel], result[:, channel]) > 22  # 12 of the input without its gaps
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
