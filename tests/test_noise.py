"""Noise found and taken out, beside closed forms and noise that is known."""

import numpy as np
import pytest

import audio_utils
from audio_utils import snr_db
from signals import noise

RATE = 8000
TIME = np.arange(4 * RATE) / RATE
RNG = np.random.default_rng(0)
WHITE = RNG.standard_normal(TIME.size)
TONES = sum(
    np.sin(2 * np.pi * f * TIME) * np.exp(-3 * (TIME % d))
    for f, d in ((220, 0.5), (440, 0.5), (1318, 0.7))
)
TONES *= 0.4 / np.sqrt(np.mean(TONES**2))
FRAMES = noise.transform(RATE)


def chopped(gap=160, every=1600):
    mask = np.zeros(TIME.size, int)
    for first in range(300, TIME.size - gap, every):
        mask[first : first + gap] = 1
    return mask


def coloured(low_db=0, high_db=-20):
    """Noise whose level falls by so much over all frequencies, and its power in a frame, told by that of many."""
    gain = 10 ** (np.linspace(low_db, high_db, TIME.size // 2 + 1) / 20)
    return np.fft.irfft(np.fft.rfft(WHITE) * gain, TIME.size)


@pytest.mark.parametrize("level", [0.03, 0.2])
@pytest.mark.parametrize("colour", ["white", "falling"])
def test_the_power_of_noise_is_found_under_tones_drawn_roughly_and_chopped(colour, level):
    hiss = level * (WHITE if colour == "white" else coloured())
    mask = chopped()
    observed = (TONES + hiss) * (1 - mask)
    found = noise.noise_power(noise.quiet_power(FRAMES, observed, 0.9 * TONES, mask))
    true = np.mean(np.abs(FRAMES.stft(hiss)) ** 2, axis=1)
    smooth = np.array([np.median(true[max(0, f - 15) : f + 16]) for f in range(true.size)])
    error_db = 10 * np.log10(found / smooth)
    assert np.abs(error_db.mean()) < 1.5 and np.quantile(np.abs(error_db), 0.8) < 3
    level_db = noise.below_db(found, TONES, FRAMES)
    assert level_db == pytest.approx(10 * np.log10(np.mean(hiss**2) / np.mean(TONES**2)), abs=2)


def test_a_tone_that_never_rests_is_no_noise_though_nobody_draws_it():
    steady = np.sin(2 * np.pi * 1000 * TIME)
    found = noise.noise_power(
        noise.quiet_power(FRAMES, steady + 0.01 * WHITE, np.zeros_like(steady), chopped() * 0)
    )
    assert 10 * np.log10(found.max() / (1e-4 * np.sum(FRAMES.win**2))) < 2


def mended(observed, mask, drawn):
    power, level_db, weights = noise.calibrate(observed, mask, RATE, lambda sound, missing: drawn)
    return noise.denoise(observed, mask, drawn, RATE, power, weights), level_db


def test_wieners_gain_is_that_of_each_frequencys_powers():
    """By a DFT of one frame: what is in it passes as S / (S + noise) has it, phases as they are."""
    size = FRAMES.m_num
    tone = np.cos(2 * np.pi * 64 / size * np.arange(8 * size))
    power = np.full(FRAMES.f_pts, 3e4)
    passed = noise.wiener(FRAMES, 2 * tone, tone, power, sure=np.inf)
    middle = slice(4 * size, 5 * size)
    heard, drawn, after = (
        np.fft.rfft(part[middle] * FRAMES.win) for part in (2 * tone, tone, passed)
    )
    gain = abs(drawn[64]) ** 2 / (abs(drawn[64]) ** 2 + 3e4)
    assert 0.3 < gain < 0.9
    # Of the three frequencies that a Hann frame spreads a tone over, the outer two have a quarter of its power.
    side = abs(drawn[63]) ** 2 / (abs(drawn[63]) ** 2 + 3e4)
    assert abs(after[64] / heard[64]) == pytest.approx((2 * gain + side) / 3, abs=0.05)
    sure = noise.wiener(
        FRAMES, 2 * tone, 0 * tone, power, sure=1
    )  # nobody draws it, but it is surely no noise
    assert snr_db(2 * tone[middle], sure[middle]) > 3 and not np.any(
        noise.wiener(FRAMES, tone, 0 * tone, power, 1e9)
    )


def test_shares_are_those_of_the_inverse_errors():
    truth = RNG.standard_normal(5000)
    ways = truth + np.array([[0.1], [0.2], [0.4]]) * RNG.standard_normal((3, 5000))
    expected = np.array([0.01, 0.04, 0.16]) ** -noise.SHARPNESS
    np.testing.assert_allclose(
        noise.mixture_weights(ways, truth), expected / expected.sum(), rtol=0.15
    )


@pytest.mark.parametrize("every", [800, 20_000])
def test_trial_gaps_lie_between_the_gaps_and_are_as_long(every):
    mask = chopped(every=every)
    trials = noise.artificial_gaps(mask)
    assert not (trials & mask).any() and 10 <= len(audio_utils.runs(trials)) <= noise.TRIALS
    assert set(np.ptp(audio_utils.runs(trials), axis=1)[1:-1]) == {
        160
    }  # the rooms at the ends may be small
    assert np.ptp(audio_utils.runs(trials)) > 0.8 * TIME.size
    assert not noise.artificial_gaps(mask * 0).any()


@pytest.mark.parametrize("level_db", [-25, -15, -5])
def test_a_noisy_chopped_sound_comes_out_better_than_what_is_drawn_and_than_the_classic(level_db):
    level = 0.4 * 10 ** (level_db / 20)
    mask = chopped()
    observed = (TONES + level * WHITE) * (1 - mask)
    drawn = 0.9 * np.roll(TONES, 1)  # as a network that errs in level and phase
    restored, found_db = mended(observed, mask, drawn)
    power = np.full(FRAMES.f_pts, level**2 * np.sum(FRAMES.win**2))
    classic = noise.classic_wiener(FRAMES, np.where(mask == 1, drawn, observed), power)
    assert snr_db(TONES, restored) > max(
        snr_db(TONES, drawn) + 1, snr_db(TONES, classic) + 0.5 * (level_db > -20)
    )
    assert found_db == pytest.approx(
        level_db, abs=2 if level_db > -20 else 5
    )  # more hides what is not drawn


def test_a_sound_without_noise_keeps_all_that_is_observed():
    mask = chopped()
    restored, level_db = mended(TONES * (1 - mask), mask, 0.9 * TONES)
    np.testing.assert_array_equal(restored[mask == 0], TONES[mask == 0])
    assert level_db < noise.NO_NOISE_DB and snr_db(TONES[mask == 1], restored[mask == 1]) > 25


def test_noise_alone_does_not_come_back():
    mask = chopped()
    restored, _ = mended(0.1 * WHITE * (1 - mask), mask, np.zeros_like(WHITE))
    assert np.mean(restored**2) < 0.02 * np.mean((0.1 * WHITE) ** 2)


def test_frames_with_gaps_tell_as_much_noise_as_whole_ones():
    mask = chopped(gap=400, every=1024)
    quiet = noise.quiet_power(FRAMES, WHITE * (1 - mask), np.zeros_like(WHITE), mask)
    assert np.nanmean(quiet[1:-1, 4:-4]) == pytest.approx(np.sum(FRAMES.win**2), rel=0.05)
    assert np.isnan(noise.quiet_power(FRAMES, WHITE, WHITE, np.ones_like(mask))[:, 4:-4]).all()


def test_what_is_drawn_louder_than_it_is_heard_passes():
    size = FRAMES.m_num
    tone = np.cos(2 * np.pi * 64 / size * np.arange(8 * size))
    peak = np.abs(FRAMES.stft(tone)[64, 16]) ** 2
    passed = noise.wiener(FRAMES, tone, 10 * tone, np.full(FRAMES.f_pts, peak / 1.5), sure=0)
    middle = slice(4 * size, 5 * size)
    assert snr_db(tone[middle], passed[middle]) > 25


def test_gaps_too_long_for_autoregression_are_filled_with_what_is_drawn():
    mask = np.zeros(TIME.size, int)
    mask[8000:10400] = 1
    drawn = 0.9 * TONES
    for way in noise.candidates(FRAMES, TONES * (1 - mask), mask, drawn, np.zeros(FRAMES.f_pts)):
        np.testing.assert_allclose(way, drawn[mask == 1])


def test_gaps_are_filled_with_what_is_drawn_before_the_noise_is_taken_out_around_them():
    mask = chopped()
    observed, power = (
        (TONES + 0.1 * WHITE) * (1 - mask),
        np.full(FRAMES.f_pts, 0.1**2 * np.sum(FRAMES.win**2)),
    )
    alone, *_ = noise.candidates(FRAMES, observed, mask, TONES, power)
    assert snr_db(TONES[mask == 1], alone) > 12  # 28; 6 with zeros in the gaps


def test_trial_gaps_leave_something_observed_on_both_sides():
    mask = chopped(gap=600, every=1000)
    trials = noise.artificial_gaps(mask)
    assert len(audio_utils.runs(mask | trials)) == len(audio_utils.runs(mask)) + len(
        audio_utils.runs(trials)
    )


@pytest.mark.parametrize(
    "redraw", [lambda sound, missing: sound, lambda sound, missing: TONES * (1 - missing)]
)
def test_a_network_that_only_repeats_what_it_hears_has_no_share(redraw):
    mask = chopped()
    *_, weights = noise.calibrate(TONES * (1 - mask), mask, RATE, redraw)
    assert weights[0] > 0.9


def test_the_level_of_noise_does_not_depend_on_how_much_is_missing():
    levels = []
    for gap in (160, 800):
        mask = chopped(gap=gap)
        _, level_db, _ = noise.calibrate(
            (TONES + 0.1 * WHITE) * (1 - mask), mask, RATE, lambda sound, missing: TONES
        )
        levels.append(level_db)
    assert levels[1] == pytest.approx(levels[0], abs=1.5)


def test_noise_is_taken_out_best_at_the_power_it_has():
    observed, power = TONES + 0.1 * WHITE, np.full(FRAMES.f_pts, 0.1**2 * np.sum(FRAMES.win**2))
    found = [
        snr_db(
            TONES,
            noise.denoise(
                observed, np.zeros(TIME.size, int), TONES, RATE, share * power, np.zeros(3)
            ),
        )
        for share in (0.4, 1, 2.5)
    ]
    assert found[1] == max(found)
