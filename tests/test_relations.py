"""Relations between restored sounds that hold for every sound, tested with a trained network."""

import functools

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_utils import C_MAJOR, Notes, note_fades, note_frequency
from baselines import best_note
from files.model_file import Restorer, load_restorer
from files.restore_sound import restore_sound
from kind import kind_of

RATE = 16000
NOTE = 4096  # samples per note
EVENT = 3200  # 0.2 s: farther away, one loud event changes nothing
NEAR = 512  # 32 ms: windows that contain more of a rest than of the note beside it reach so far
SEEDS = st.integers(0, 10**6)
relation = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def restore(sound, tmp_path_factory):
    """Return a function that restores a sound (T,) or (T, channels) through files of floats."""
    model, folder = load_restorer(sound[0]), tmp_path_factory.mktemp("relations")
    return functools.partial(restored, model, folder)


def restored(model, folder, signal, **options):
    soundfile.write(folder / "in.wav", signal, RATE, subtype="DOUBLE")
    restore_sound(model, folder / "in.wav", folder / "out.wav", **options)
    return soundfile.read(folder / "out.wav")[0]


def notes(seed, count=2, noise=(0, 0.3), gaps=True):
    """Return faded notes in noise, with a gap in every 64 ms."""
    rng = np.random.default_rng(seed)
    frequency = np.repeat([note_frequency(rng.choice(C_MAJOR)) for _ in range(count)], NOTE)
    tone = 0.5 * np.sin(2 * np.pi * (rng.random() + np.cumsum(frequency) / RATE))
    tone *= np.tile(note_fades(NOTE, RATE), count)
    tone += rng.uniform(*noise) * rng.standard_normal(tone.size)
    return np.where(gap_mask(rng, tone.size) & gaps, 0, tone)


def gap_mask(rng, samples):
    mask = np.zeros(samples, bool)
    for first in range(0, samples - 1023, 1024):
        start = first + rng.integers(1, 800)
        mask[start : start + 205] = True
    return mask


def silence(kind, samples, seed=0):
    """Return zeros, dither of 16 bits, or noise at -60 dB."""
    rng = np.random.default_rng(seed)
    dither = np.round(rng.triangular(-1, 0, 1, samples)) / 32768
    return {"zeros": 0 * dither, "dither": dither, "-60 dB": 1e-3 * rng.standard_normal(samples)}[
        kind
    ]


SILENCES = st.sampled_from(["zeros", "dither", "-60 dB"])


def difference_db(expected, result):
    """Return the level of the difference, relative to what is expected."""
    error = np.mean((result - expected) ** 2) / np.mean(expected**2)
    return 10 * np.log10(error + 1e-20)


@relation
@given(SEEDS, st.floats(-3, 5), st.sampled_from([1, -1]))
def test_scaling_a_sound_scales_the_result(restore, seed, exponent, sign):
    """Two polarities may fit a window almost equally well, so rounding must not depend on level."""
    x, scale = notes(seed), sign * 10**exponent
    assert difference_db(restore(x), restore(scale * x) / scale) < -100


@relation
@given(SEEDS, st.floats(-0.3, 0.3))
def test_an_offset_stays_as_it_is(restore, seed, offset):
    x = notes(seed)
    assert difference_db(restore(x), restore(x + offset * (x != 0)) - offset) < -30


@relation
@given(SEEDS, SILENCES, st.floats(-0.3, 0.3))
def test_silence_stays_silent(restore, seed, kind, offset):
    x = silence(kind, 20_000, seed)
    result = restore(x + offset) - offset
    assert np.std(result) <= 0.1 * np.std(x) + 1e-7 and abs(np.mean(result)) < 1e-4


@relation
@given(SEEDS, SILENCES, st.integers(10, 120), st.sampled_from([0, 1, 2]))
def test_inserted_silence_changes_nothing_else(restore, seed, kind, hops, place):
    x, cut = notes(seed), place * NOTE
    rest = silence(kind, 128 * hops, seed)
    result = restore(np.concatenate([x[:cut], rest, x[cut:]]))
    inside = result[cut + NEAR : cut + rest.size - NEAR]
    assert np.sqrt(np.mean(inside**2)) <= 0.1 * np.std(rest) + 1e-7
    result = np.delete(result, np.s_[cut : cut + rest.size])
    far = np.abs(np.arange(x.size) - cut) > NEAR
    assert difference_db(restore(x)[far], result[far]) < -30


@relation
@given(SEEDS, SEEDS)
def test_channels_are_independent(restore, seed, other):
    both = np.stack([notes(seed), 0.1 * notes(other)], 1)
    result = restore(both)
    np.testing.assert_array_equal(result[:, ::-1], restore(both[:, ::-1]))
    np.testing.assert_array_equal(result[:, 0], restore(both[:, 0]))


@relation
@given(SEEDS, SEEDS, SILENCES)
def test_parts_around_a_pause_can_be_restored_alone(restore, seed, other, kind):
    first, second = notes(seed), notes(other)
    half = silence(kind, 128 * 40, seed)
    before, after = np.append(first, half), np.append(half, second)
    alone = np.append(restore(before), restore(after))
    assert difference_db(alone, restore(np.append(before, after))) < -30


@relation
@given(SEEDS, st.sampled_from([1, 40, 320]), st.floats(0.4, 1), st.floats(0.003, 0.3))
def test_a_loud_event_changes_nothing_far_away(restore, seed, length, place, loudness):
    x, event = loudness * notes(seed, 4), np.hanning(length + 2)[1:-1]
    start = round(place * RATE)
    loud = x.copy()
    loud[start : start + length] += event
    far = np.r_[: start - EVENT, start + length + EVENT : x.size]
    assert difference_db(restore(x)[far], restore(loud)[far]) < -100


@relation
@given(SEEDS, st.floats(0.01, 1))
def test_clean_notes_that_a_model_knows_stay(tmp_path, seed, loudness):
    """A window with two notes cannot be drawn."""

    def draw(windows, observed):
        return best_note(windows, 1 - observed, Notes())

    model = Restorer(draw, 1024, kind_of(Notes().metadata, 1024))
    x = loudness * notes(seed, noise=(0, 0), gaps=False)
    steady = np.minimum(np.arange(x.size) % NOTE, -np.arange(x.size) % NOTE) > NEAR
    assert difference_db(x[steady], restored(model, tmp_path, x)[steady]) < -30


@relation
@given(SEEDS)
def test_without_gaps_and_noise_keep_changes_nothing(restore, seed):
    x = notes(seed, noise=(0, 0), gaps=False)
    np.testing.assert_array_equal(restore(x, keep=True), x)
