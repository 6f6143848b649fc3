"""Relations that hold for noisy sounds of any kind, with a local network: fixed filters."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audio_utils import snr_db
from signals.denoise_sound import Denoiser

RATE = 4000
TIME = np.arange(2 * RATE) / RATE
PITCHES = 330.0, 550.0, 770.0, 1320.0  # Hz
WHITE = np.random.default_rng(0).standard_normal(4 * TIME.size)
KERNEL = np.hanning(257) * sum(np.cos(2 * np.pi * f * np.arange(-128, 129) / RATE) for f in PITCHES)
KERNEL /= np.abs(np.fft.rfft(KERNEL, RATE)).max()
FEW = settings(max_examples=5, derandomize=True, deadline=None)
SEEDS, SNRS = st.integers(0, 99), st.floats(5, 20)


def sounds(seed, snr):
    """Return eight notes with rests, of RMS 0.1, without and with noise."""
    rng = np.random.default_rng(seed)
    size = TIME.size // 8
    notes = np.sin(2 * np.pi * np.outer(rng.choice(PITCHES, 8), TIME[:size]))
    notes *= rng.choice([0.0, 0.5, 1.0], (8, 1)) * np.hanning(size + 200)[100:-100]
    notes[0] += np.sin(2 * np.pi * PITCHES[0] * TIME[:size])
    clean = 0.1 * notes.ravel() / notes.std()
    return clean, clean + 0.1 * 10 ** (-snr / 20) * WHITE[seed : seed + TIME.size]


def restored(sound):
    """Return the sound as restored with a network that keeps what is near PITCHES: (T,) -> (T,)."""
    nothing = np.zeros((0, 2), int)
    denoiser = Denoiser(
        lambda first, end: np.pad(sound[first:end], (0, max(0, end - sound.size))),
        nothing,
        sound.size,
        RATE,
        lambda part, mask, first: np.convolve(part, KERNEL, "same"),
    )
    return np.concatenate(list(denoiser.pieces()))


def check_same(clean, before, after, where):
    """Check that a result differs by less than -30 dB, or is as good to 0.3 dB."""
    clean, before, after = clean[where], before[where], after[where]
    worse_db = snr_db(clean, before) - snr_db(clean, after)
    assert snr_db(before, after) > 30 or worse_db < 0.3


@pytest.mark.parametrize("level_db", [-np.inf, -60])  # below the noise
@given(SEEDS, SNRS, st.floats(0, 1), st.floats(0.05, 0.6))
@FEW
def test_inserted_silence_changes_nothing_elsewhere(level_db, seed, snr, place, fraction):
    clean, noisy = sounds(seed, snr)
    size, at = int(fraction / (1 - fraction) * clean.size), int(place * clean.size)
    silence = 10 ** (level_db / 20) * np.std(noisy - clean) * WHITE[-size:]
    found = restored(np.concatenate([noisy[:at], silence, noisy[at:]]))
    found = np.delete(found, np.s_[at : at + size])
    check_same(clean, restored(noisy), found, np.abs(TIME - TIME[-1] * place) > 0.15)


@pytest.mark.parametrize("level", [0, 1e-4])
def test_a_long_silence_says_nothing_about_the_noise(level):
    """A recorder may have run for a long time before and after. Here 30 of 32 s are silent."""
    clean, noisy = sounds(3, 10)
    silence = level * np.resize(WHITE, 15 * RATE)
    found = restored(np.concatenate([silence, noisy, silence]))[silence.size : -silence.size]
    assert snr_db(clean, restored(noisy)) > 18
    check_same(clean, restored(noisy), found, np.abs(TIME - 1) < 0.85)


@given(SEEDS, SNRS, st.floats(-9, 9), st.sampled_from([-1, 1]))
@example(3, 12, -6, -1)
@FEW
def test_a_scaled_sound_gives_a_scaled_result(seed, snr, exponent, sign):
    """Spectra have single precision, so a sound must get its usual level first."""
    scale, (_, noisy) = sign * 10**exponent, sounds(seed, snr)
    np.testing.assert_allclose(restored(scale * noisy) / scale, restored(noisy), atol=1e-6)


@given(SEEDS, SNRS, st.floats(0.1, 1.8), st.floats(0, 30), st.booleans())
@FEW
def test_a_loud_event_changes_nothing_far_away(seed, snr, start, loud_db, burst):
    clean, noisy = sounds(seed, snr)
    near = np.abs(TIME - start) < 0.05
    event = WHITE[: TIME.size] if burst else np.sin(2 * np.pi * 60 * TIME)
    found = restored(noisy + near * event * 0.1 * 10 ** (loud_db / 20))
    check_same(clean, restored(noisy), found, np.abs(TIME - start) > 0.25)
