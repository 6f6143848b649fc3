"""Mains hum, synthesized at known frequencies."""

import numpy as np
import pytest

from audio_utils import note_frequency, snr_db
from signals.hum import find_hum, without_hum

RATE = 2000
TIME = np.arange(12 * RATE) / RATE
WHITE = np.random.default_rng(0).standard_normal(TIME.size)
# Notes near multiples of 50 and 60 Hz: G2, B2, F#3, B3
NOTES = np.sin(2 * np.pi * np.repeat([98.0, 123.5, 185, 246.9], TIME.size // 4) * TIME)


def found(sound):
    return find_hum(np.split(sound, 6), RATE)


@pytest.mark.parametrize("mains", [49.9, 50, 60.05])
@pytest.mark.parametrize("level", [0.05, 0.5])
def test_hum_is_found_and_removed(mains, level):
    tones = mains * np.array([1, 2, 4])
    hum = level * np.sin(2 * np.pi * np.outer(tones, TIME) + 1).sum(0)
    sound = NOTES + 0.1 * WHITE
    np.testing.assert_allclose(found(sound + hum), tones, atol=0.03)
    middle = slice(RATE, -RATE)
    result = without_hum(sound + hum, found(sound + hum), RATE)
    assert snr_db(sound[middle], result[middle]) > 25


@pytest.mark.parametrize("mains, multiples", [(50, [1, 7, 13, 19]), (60, [2, 6, 11, 16])])
def test_high_harmonics_of_hum_are_found(mains, multiples):
    """Lamps and chargers buzz at all multiples up to the twentieth."""
    tones = mains * np.array(multiples)
    hum = 0.2 * np.sin(2 * np.pi * np.outer(tones, TIME) + 1).sum(0)
    np.testing.assert_allclose(found(NOTES + 0.1 * WHITE + hum), tones, atol=0.03)


@pytest.mark.parametrize(
    "sound", [NOTES, WHITE, 0 * WHITE, NOTES + np.sin(2 * np.pi * 50 * TIME) * (TIME % 2.3 < 1.2)]
)
def test_other_sounds_have_no_hum(sound):
    assert not found(sound).size


@pytest.mark.parametrize("note", ["G1", "A#1", "B1", "G2"])
def test_held_bass_notes_are_no_hum(note):
    """An organ may hold a pedal note throughout. G1 is 1 Hz below 50 Hz."""
    tones = np.outer(note_frequency(note) * np.arange(1, 5), TIME)
    assert not found(NOTES + 0.1 * WHITE + np.sin(2 * np.pi * tones).sum(0)).size


def test_a_sound_too_short_to_tell_has_no_hum():
    assert not find_hum([np.sin(2 * np.pi * 50 * TIME[: 3 * RATE])], RATE).size


@pytest.mark.parametrize("level, is_found", [(0.02, True), (0.005, False)])
def test_hum_has_at_least_one_percent_of_the_sound(level, is_found):
    """The level is relative to the RMS of the sound. A weaker tone may be a detail of it."""
    hum = level * NOTES.std() * np.sin(2 * np.pi * 50 * TIME)
    np.testing.assert_allclose(found(NOTES + 0.003 * WHITE + hum), [50] * is_found, atol=0.03)


@pytest.mark.parametrize("swell, is_hum", [(0.1, True), (0.4, False)])
def test_a_tone_that_swells_is_no_hum(swell, is_hum):
    """Hum is steady. A note on a synthesizer may have 50 Hz exactly."""
    tone = (1 + swell * np.sin(2 * np.pi * 0.15 * TIME)) * np.sin(2 * np.pi * 50 * TIME)
    np.testing.assert_allclose(found(NOTES + 0.1 * WHITE + tone), [50] * is_hum, atol=0.03)
