"""Notes, sounds, spectrogram, WAV files and scores, each compared with something independent."""

import argparse
import wave

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile

import audio_utils
from audio_utils import C_MAJOR, Notes, note_frequency, si_sdr_db, snr_db
from harness import UserError

RATE = 16000


def test_notes_are_equally_tempered():
    steps = [0, 2, 4, 5, 7, 9, 11]  # MIDI 60 is C4, 69 is A4 = 440 Hz
    expected = [440 * 2 ** ((60 + step - 69) / 12) for step in steps]
    np.testing.assert_allclose([note_frequency(note) for note in C_MAJOR], expected)
    assert note_frequency("C4") == pytest.approx(261.6256, abs=1e-4)
    assert note_frequency("A4") == 440 and note_frequency("A3") == 220
    assert note_frequency("F#4") == note_frequency("Gb4") == pytest.approx(369.9944, abs=1e-4)
    for wrong in ("H4", "C", "c4", "C#", ""):
        with pytest.raises(ValueError, match="must be notes"):
            note_frequency(wrong)


def fit(signals, *functions):
    """Fit signals (B, N) by functions of time (H, N). Returns weights (H, B) and residuals."""
    basis = np.concatenate(functions).T
    weights, *_ = np.linalg.lstsq(basis, signals.T.astype(float), rcond=None)
    return weights, signals.T - basis @ weights


def test_noisy_notes_have_pitch_level_noise_and_random_phase():
    tone, clean, index = (part.numpy() for part in Notes().windows("training", 2000, (1, 2)))
    time = np.arange(1024) / RATE
    for number, note in enumerate(C_MAJOR):
        angle = 2 * np.pi * note_frequency(note) * time[None]
        weights, residual = fit(tone[index == number], np.sin(angle), np.cos(angle))
        assert (residual**2).sum(0).max() < 1e-5
        np.testing.assert_allclose(np.hypot(*weights), 0.5, rtol=1e-4)
        phase = np.arctan2(weights[1], weights[0]) / (2 * np.pi) + 0.5
        assert scipy.stats.kstest(phase, "uniform").pvalue > 1e-3
    assert scipy.stats.chisquare(np.bincount(index)).pvalue > 1e-3
    assert scipy.stats.kstest(((clean - tone) / 0.2).ravel()[::10], "norm").pvalue > 1e-3
    assert snr_db(tone, clean) == pytest.approx(10 * np.log10(0.125 / 0.04), abs=0.05)  # 4.95 dB


def test_the_scale_has_its_notes_in_order_without_clicks():
    tone, clean = Notes().long(0)
    assert tone.shape == clean.shape == (7 * 8000,)
    for note, part in zip(C_MAJOR, tone.reshape(7, 8000)):
        peak = np.argmax(np.abs(np.fft.rfft(part * np.hanning(8000), 2**18))) * RATE / 2**18
        assert peak == pytest.approx(note_frequency(note), abs=0.2)
        assert abs(part[0]) < 0.01 and abs(part[-1]) < 0.01
        assert np.abs(part).max() == pytest.approx(0.5, abs=1e-3)
    steepest = 0.5 * 2 * np.pi * note_frequency("B4") / RATE
    assert np.abs(np.diff(tone)).max() < 1.3 * steepest
    assert np.std(clean - tone) == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("timbre", audio_utils.TIMBRES)
def test_every_timbre_has_the_level_of_a_sine(timbre):
    tone, _ = Notes(("A4", "C4"), timbre).long(0)
    assert np.std(tone) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("rate", [1001, 11025, 22050])
def test_a_scale_has_half_a_second_per_note_at_any_rate(rate):
    tone, clean = Notes(("C4", "A3", "D4"), "sine", rate, rate // 4).long(0)
    assert tone.shape == clean.shape and tone.size == pytest.approx(3 * rate / 2, abs=1.5)


def test_harmonic_partials_fall_as_1_over_n():
    tone = Notes(("A4",), "harmonic").long(0)[0][None, 100:-100]
    angle = 2 * np.pi * 440 * np.arange(1, 8)[:, None] * np.arange(tone.size) / RATE
    weights, residual = fit(tone, np.sin(angle), np.cos(angle))
    amplitudes = np.hypot(*weights.reshape(2, 7))
    expected = [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 0]
    np.testing.assert_allclose(amplitudes / amplitudes[0], expected, atol=1e-6)
    assert np.std(residual) < 1e-6


def test_partials_above_the_nyquist_frequency_are_left_out():
    tone, _ = Notes(("A4",), "harmonic", 3000).long(0)
    spectrum = np.abs(np.fft.rfft(tone))  # bins of 2 Hz
    assert spectrum[[220, 440, 660]].min() > 50  # 440, 880 and 1320 Hz
    aliases = [(3000 - 1760) // 2, (3000 - 2200) // 2]
    assert spectrum[aliases].max() < 10


@pytest.mark.parametrize("timbre", audio_utils.TIMBRES)
def test_metadata_have_the_notes_and_their_level(timbre):
    notes = Notes(("C4", "A4"), timbre)
    _, clean = notes.long((1, 2))
    assert np.sqrt(np.mean(clean**2)) == pytest.approx(notes.metadata["rms"], rel=0.02)
    assert notes.metadata["notes"] == ["C4", "A4"] and notes.metadata["timbre"] == timbre


def test_windows_of_plucked_notes_start_at_any_age():
    """The partials of a window give its age: they decay at different rates."""
    sounds = Notes(("A4",), "plucked")
    tone, clean, _ = (part.numpy() for part in sounds.windows("training", 500, (1, 2)))
    assert np.std(clean - tone) == pytest.approx(0.2, rel=0.01)
    time, number = np.arange(1024) / RATE, np.arange(1, 7)[:, None]
    angle, decay = 2 * np.pi * 440 * number * time, np.exp(-3 * number * time)
    weights, residual = fit(tone, decay * np.sin(angle), decay * np.cos(angle))
    assert np.abs(residual).max() < 1e-4
    levels = np.hypot(*weights.reshape(2, 6, -1)) * number  # relative to the initial 1 / n
    ages = np.log(levels[0] / levels[1]) / 3
    assert scipy.stats.kstest(ages, "uniform", (0, 0.5 - 1024 / RATE)).pvalue > 1e-3
    np.testing.assert_allclose(np.log(levels[1] / levels[2]) / 3, ages, atol=2e-3)


def test_frequency_limit_includes_the_energy():
    time = np.arange(RATE) / RATE
    noise = 0.01 * np.random.default_rng(0).standard_normal(RATE)
    assert audio_utils.frequency_limit(np.sin(2 * np.pi * 440 * time) + noise, RATE) == 2000
    assert audio_utils.frequency_limit(np.sin(2 * np.pi * 2600 * time) + noise, RATE) == 6000
    assert audio_utils.frequency_limit(noise, RATE) == 8000
    assert audio_utils.frequency_limit(noise, 3000) == 1500


@pytest.mark.parametrize("fraction, limit", [(0.005, 2000), (0.05, 6000)])
def test_frequency_limit_leaves_out_one_percent_of_the_energy(fraction, limit):
    """An offset has no influence, however large it is."""
    low, high = (np.sin(2 * np.pi * f * np.arange(RATE) / RATE) for f in (440, 2600))
    sound = np.sqrt(1 - fraction) * low + np.sqrt(fraction) * high + 10
    assert audio_utils.frequency_limit(sound, RATE) == limit


def test_a_note_has_a_period_per_window_and_is_below_nyquist():
    """A4 has 440 Hz: exactly 16 samples at 7,040 Hz, and half of 880 Hz."""
    Notes(("A4",), "sine", 7040, 16).check()
    Notes(("A4",), "sine", 881, 16).check()
    for rate, window in ((7041, 16), (7040, 15), (880, 16)):
        with pytest.raises(UserError, match=r"--notes: must be from .* got A4, 440 Hz"):
            Notes(("A4",), "sine", rate, window).check()


def test_runs_are_starts_and_ends():
    mask = np.array([1, 1, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(audio_utils.runs(mask), [[0, 2], [4, 5], [6, 7]])
    assert audio_utils.runs(np.zeros(5)).shape == (0, 2)


def test_cut_keeps_every_sample():
    pieces = audio_utils.cut(np.arange(10), 4)
    np.testing.assert_array_equal(pieces, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]])


def test_spectrogram_levels_are_relative_to_a_full_scale_sine():
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    frequencies, times, levels = audio_utils.spectrogram_db(sine, RATE)
    assert levels.shape == (frequencies.size, times.size)
    np.testing.assert_allclose(levels.max(0), 20 * np.log10(0.5), atol=0.01)
    np.testing.assert_allclose(frequencies[levels.argmax(0)], 1000)


def test_a_spectrogram_column_matches_numpys_fft():
    noise = np.random.default_rng(0).standard_normal(4096)
    _, times, levels = audio_utils.spectrogram_db(noise, RATE)
    hann = scipy.signal.get_window("hann", 1024)
    expected = np.abs(np.fft.rfft(noise[512 : 512 + 1024] * hann)) * 2 / hann.sum()
    assert times[2] == pytest.approx((512 + 512) / RATE)
    np.testing.assert_allclose(levels[:, 2], 20 * np.log10(expected), atol=1e-6)
    _, times, levels = audio_utils.spectrogram_db(noise[:500], 1000)
    assert levels.shape == (63, 13) and times[0] == 0.0625


def test_wav_round_trip(tmp_path):
    signal = np.random.default_rng(0).uniform(-1, 1, 5000)
    audio_utils.write_wav(tmp_path / "a.wav", signal, 8000)
    again, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 8000
    np.testing.assert_allclose(again * 32768 / 32767, signal, atol=0.501 / 32767)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getnframes()) == (1, 2, 5000)


def test_a_wav_is_scaled_only_if_it_would_clip(tmp_path):
    audio_utils.write_wav(tmp_path / "loud.wav", np.array([0.5, -2.0, 1.0]), 8000)
    np.testing.assert_allclose(soundfile.read(tmp_path / "loud.wav")[0], [0.25, -1, 0.5], atol=1e-4)


def test_scores_have_their_published_values():
    target, estimate = [3, -0.5, 2, 7], [2.5, 0.0, 2, 8]  # torchmetrics' documentation
    assert si_sdr_db(target, estimate) == pytest.approx(18.4030, abs=1e-4)
    assert si_sdr_db(target, 5 * np.array(estimate)) == pytest.approx(18.4030, abs=1e-4)
    assert snr_db(target, estimate) == pytest.approx(10 * np.log10(62.25 / 1.5))
    assert snr_db([1, 1], [0, 0]) == 0  # the error is the reference
    assert np.isnan(snr_db([], []))


def test_joined_windows_start_and_end_softly():
    joined = audio_utils.one_after_the_other(np.ones((3, 1024)), RATE)
    assert joined.shape == (3 * (1024 + 1600),)
    assert np.abs(np.diff(joined)).max() < 0.06
    assert joined.max() == 1


def test_log_spectral_distance_of_a_gain_is_the_gain():
    noise = np.random.default_rng(0).standard_normal(8000)
    assert audio_utils.log_spectral_distance_db(noise, noise, RATE) == 0
    distance = audio_utils.log_spectral_distance_db(noise, 0.5 * noise, RATE)
    assert distance == pytest.approx(6.0206, abs=1e-3)


def test_titles_name_notes_and_timbre():
    assert Notes().title == "The scale of C major"
    assert Notes(timbre="plucked").title == "The scale of C major, plucked"
    assert Notes(("C4", "G4")).title == "C4 G4"
    assert Notes(("A4",), "harmonic").title == "A4, harmonic"


@pytest.mark.parametrize("size", range(1, 18))
def test_cut_pads_only_the_last_piece(size):
    pieces = audio_utils.cut(np.arange(1, size + 1), 4)
    assert pieces.shape == (-(-size // 4), 4)
    np.testing.assert_array_equal(pieces.ravel()[:size], np.arange(1, size + 1))
    assert not pieces.ravel()[size:].any()


def test_silence_has_the_level_of_the_floor():
    *_, levels = audio_utils.spectrogram_db(np.zeros(4096), RATE)
    np.testing.assert_allclose(levels, -80)
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / RATE)
    distance = audio_utils.log_spectral_distance_db(np.zeros(8000), np.zeros(8000), RATE)
    assert distance == 0 < audio_utils.log_spectral_distance_db(tone, 0 * tone, RATE) < np.inf


def test_a_partial_at_the_nyquist_frequency_is_left_out():
    """Its samples depend on its phase alone. Just below, it is kept."""
    for rate, kept in ((3520, 3), (3521, 4)):  # the fourth partial of A4 has 1,760 Hz
        amplitudes, _ = audio_utils.partials("A4", Notes(("A4",), "harmonic", rate, 256))
        assert np.count_nonzero(amplitudes) == kept


@pytest.mark.parametrize("names", ["C4,C4", "C4,E4,C4", "F#4,Gb4", "E4,Fb4"])
def test_notes_of_the_same_frequency_are_refused(names):
    with pytest.raises(argparse.ArgumentTypeError, match="must be different notes"):
        audio_utils.note_names(names)
    with pytest.raises(argparse.ArgumentTypeError):
        audio_utils.note_names([])
    assert audio_utils.note_names("C4,E4") == audio_utils.note_names(["C4", "E4"]) == ("C4", "E4")


def test_the_log_spectral_distance_is_averaged_over_time():
    """A gain of 20 dB in one half and of 0 dB in the other gives about 10 dB, not the RMS."""
    noise = np.random.default_rng(0).standard_normal(160_000)
    other = noise * np.where(np.arange(noise.size) < noise.size // 2, 0.1, 1)
    assert audio_utils.log_spectral_distance_db(noise, other, RATE) == pytest.approx(10, abs=0.2)
