"""Notes, sounds, spectrogram, files and scores, each against something independent."""

import wave

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile

import audio_utils
from audio_utils import C_MAJOR, note_frequency, si_sdr_db, snr_db

RATE = 16000


def test_notes_are_equally_tempered():
    steps = [0, 2, 4, 5, 7, 9, 11]  # MIDI 60 is C4, 69 is A4 = 440 Hz
    expected = [440 * 2 ** ((60 + step - 69) / 12) for step in steps]
    np.testing.assert_allclose([note_frequency(note) for note in C_MAJOR], expected)
    assert note_frequency("C4") == pytest.approx(261.6256, abs=1e-4)
    assert note_frequency("A4") == 440 and note_frequency("A3") == 220
    assert note_frequency("F#4") == note_frequency("Gb4") == pytest.approx(369.9944, abs=1e-4)
    for wrong in ("H4", "C", "c4", "C#", ""):
        with pytest.raises(ValueError, match="not a note"):
            note_frequency(wrong)


def test_noisy_notes_have_the_pitch_level_noise_and_random_phase_promised():
    tone, clean, index = (
        part.numpy() for part in audio_utils.noisy_notes(C_MAJOR, 2000, 1024, RATE, (1, 2))
    )
    frequencies = np.array([note_frequency(note) for note in C_MAJOR])
    time = np.arange(1024) / RATE
    # Least squares of each window on the sine and cosine of its note leaves nothing, and gives amplitude and phase.
    for note, frequency in enumerate(frequencies):
        basis = np.stack(
            [np.sin(2 * np.pi * frequency * time), np.cos(2 * np.pi * frequency * time)], 1
        )
        weights, left, *_ = np.linalg.lstsq(basis, tone[index == note].T, rcond=None)
        assert left.max() < 1e-5
        np.testing.assert_allclose(np.hypot(*weights), 0.5, rtol=1e-4)
        assert (
            scipy.stats.kstest(
                np.arctan2(weights[1], weights[0]) / (2 * np.pi) + 0.5, "uniform"
            ).pvalue
            > 1e-3
        )
    assert scipy.stats.chisquare(np.bincount(index)).pvalue > 1e-3
    assert scipy.stats.kstest(((clean - tone) / 0.2).ravel()[::10], "norm").pvalue > 1e-3
    assert snr_db(tone, clean) == pytest.approx(10 * np.log10(0.125 / 0.04), abs=0.05)  # 4.95 dB


def test_the_scale_is_one_note_after_the_other_without_clicks():
    tone, clean = audio_utils.noisy_scale(C_MAJOR, 0.5, RATE, np.random.default_rng(0))
    assert tone.shape == clean.shape == (7 * 8000,)
    for note, part in zip(C_MAJOR, tone.reshape(7, 8000)):
        peak = np.argmax(np.abs(np.fft.rfft(part * np.hanning(8000), 2**18))) * RATE / 2**18
        assert peak == pytest.approx(note_frequency(note), abs=0.2)
        assert abs(part[0]) < 0.01 and abs(part[-1]) < 0.01
        assert np.abs(part).max() == pytest.approx(0.5, abs=1e-3)
    steepest = 0.5 * 2 * np.pi * note_frequency("B4") / RATE
    assert np.abs(np.diff(tone)).max() < 1.3 * steepest
    assert np.std(clean - tone) == pytest.approx(0.2, rel=0.02)


def lines(signal, frequencies):
    """Amplitudes of sinusoids at these frequencies, by least squares, and what they leave."""
    angle = 2 * np.pi * np.outer(np.arange(signal.size) / RATE, frequencies)
    basis = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, signal, rcond=None)
    return np.hypot(*weights.reshape(2, -1)), np.std(signal - basis @ weights)


def test_every_timbre_has_its_partials_at_the_same_level():
    for timbre in audio_utils.TIMBRES:
        tone, _ = audio_utils.noisy_scale(("A4", "C4"), 0.5, RATE, np.random.default_rng(0), timbre)
        assert np.std(tone) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    tone, _ = audio_utils.noisy_scale(("A4",), 0.5, RATE, np.random.default_rng(0), "harmonic")
    amplitudes, left = lines(tone[100:-100], 440 * np.arange(1, 8))
    np.testing.assert_allclose(
        amplitudes / amplitudes[0], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 0], atol=1e-6
    )
    assert left < 1e-6
    low, _ = audio_utils.noisy_scale(("A4",), 0.5, 3000, np.random.default_rng(0), "harmonic")
    spectrum = np.abs(
        np.fft.rfft(low)
    )  # bins of 2 Hz; nothing folds back from 4, 5, 6 times 440 Hz
    assert (
        spectrum[[220, 440, 660]].min()
        > 50
        > 10
        > spectrum[[(3000 - 1760) // 2, (3000 - 2200) // 2]].max()
    )


@pytest.mark.parametrize("timbre", audio_utils.TIMBRES)
def test_a_model_is_told_the_level_its_notes_have(timbre):
    notes = audio_utils.Notes(("C4", "A4"), timbre, RATE, 1024)
    _, clean = notes.long((1, 2))
    assert np.sqrt(np.mean(clean**2)) == pytest.approx(notes.metadata["rms"], rel=0.02)
    assert notes.metadata["notes"] == ["C4", "A4"] and notes.metadata["timbre"] == timbre


def test_windows_of_plucked_notes_decay_as_of_one_moment_anywhere_in_the_note():
    tone, clean, _ = (
        part.numpy()
        for part in audio_utils.noisy_notes(("A4",), 500, 1024, RATE, (1, 2), timbre="plucked")
    )
    assert np.std(clean - tone) == pytest.approx(0.2, rel=0.01)
    time, number = np.arange(1024) / RATE, np.arange(1, 7)
    angle = 2 * np.pi * 440 * np.outer(time, number)
    decay = np.exp(-3 * np.outer(time, number))
    basis = np.concatenate([decay * np.sin(angle), decay * np.cos(angle)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, tone.T.astype(float), rcond=None)
    assert np.abs(tone.T - basis @ weights).max() < 1e-4
    levels = (
        np.hypot(*weights.reshape(2, 6, -1)) * number[:, None]
    )  # without the 1, 1/2, 1/3, ... of the pluck
    ages = np.log(levels[0] / levels[1]) / 3
    assert scipy.stats.kstest(ages, "uniform", (0, 0.5 - 1024 / RATE)).pvalue > 1e-3
    np.testing.assert_allclose(np.log(levels[1] / levels[2]) / 3, ages, atol=2e-3)


def test_a_picture_goes_up_to_where_the_energy_is():
    time = np.arange(RATE) / RATE
    noise = 0.01 * np.random.default_rng(0).standard_normal(RATE)
    assert audio_utils.frequency_limit(np.sin(2 * np.pi * 440 * time) + noise, RATE) == 2000
    assert audio_utils.frequency_limit(np.sin(2 * np.pi * 2600 * time) + noise, RATE) == 6000
    assert audio_utils.frequency_limit(noise, RATE) == 8000
    assert audio_utils.frequency_limit(noise, 3000) == 1500


def test_cut_keeps_every_sample():
    pieces = audio_utils.cut(np.arange(10), 4)
    np.testing.assert_array_equal(pieces, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]])


def test_spectrogram_levels_are_relative_to_a_full_scale_sine():
    time = np.arange(RATE) / RATE
    frequencies, times, levels = audio_utils.spectrogram_db(
        0.5 * np.sin(2 * np.pi * 1000 * time), RATE
    )
    assert levels.shape == (frequencies.size, times.size)
    np.testing.assert_allclose(levels.max(0), 20 * np.log10(0.5), atol=0.01)
    np.testing.assert_allclose(frequencies[levels.argmax(0)], 1000)
    # One column by hand.
    noise = np.random.default_rng(0).standard_normal(4096)
    _, times, levels = audio_utils.spectrogram_db(noise, RATE)
    hann = scipy.signal.get_window("hann", 1024)
    by_hand = np.abs(np.fft.rfft(noise[512 : 512 + 1024] * hann)) * 2 / hann.sum()
    assert times[2] == pytest.approx((512 + 512) / RATE)
    np.testing.assert_allclose(levels[:, 2], 20 * np.log10(by_hand), atol=1e-6)
    _, times, levels = audio_utils.spectrogram_db(noise[:500], 1000)
    assert levels.shape == (63, 13) and times[0] == 0.0625


def test_wav_round_trip(tmp_path):
    signal = np.random.default_rng(0).uniform(-1, 1, 5000)
    audio_utils.write_wav(tmp_path / "a.wav", signal, 8000)
    again, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 8000
    np.testing.assert_allclose(
        again * 32768 / 32767, signal, atol=0.501 / 32767
    )  # full scale is the largest number
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getnframes()) == (1, 2, 5000)


def test_a_wav_is_scaled_only_where_it_would_clip(tmp_path):
    audio_utils.write_wav(tmp_path / "loud.wav", np.array([0.5, -2.0, 1.0]), 8000)
    np.testing.assert_allclose(soundfile.read(tmp_path / "loud.wav")[0], [0.25, -1, 0.5], atol=1e-4)


def test_scores_have_their_published_values():
    target, estimate = [3, -0.5, 2, 7], [2.5, 0.0, 2, 8]  # torchmetrics' documentation
    assert si_sdr_db(target, estimate) == pytest.approx(18.4030, abs=1e-4)
    assert si_sdr_db(target, 5 * np.array(estimate)) == pytest.approx(18.4030, abs=1e-4)
    assert snr_db(target, estimate) == pytest.approx(10 * np.log10(62.25 / 1.5))
    assert snr_db([1, 1], [0, 0]) == 0  # filling with zeros: 0 dB by definition


def test_windows_one_after_the_other_start_and_end_softly():
    strung = audio_utils.one_after_the_other(np.ones((3, 1024)), RATE, pause=0.1)
    assert strung.shape == (3 * (1024 + 1600),)
    assert np.abs(np.diff(strung)).max() < 0.06
    assert strung.max() == 1


def test_log_spectral_distance_is_that_of_a_gain_and_zero_for_the_same():
    noise = np.random.default_rng(0).standard_normal(8000)
    assert audio_utils.log_spectral_distance_db(noise, noise, RATE) == 0
    assert audio_utils.log_spectral_distance_db(noise, 0.5 * noise, RATE) == pytest.approx(
        6.0206, abs=1e-3
    )
