"""Estimates of the noise and its removal, against closed forms and known noise."""

import numpy as np
import pytest
import scipy

from audio_utils import runs, snr_db
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
SHORT, LONG = noise.transform(RATE, 0.5), noise.transform(RATE, 2)


def chopped(gap=160, every=1600):
    mask = np.zeros(TIME.size, int)
    for first in range(300, TIME.size - gap, every):
        mask[first : first + gap] = 1
    return mask


def colored(low_db=0, high_db=-20):
    """Noise whose level falls linearly over frequency, from `low_db` to `high_db`."""
    gain = 10 ** (np.linspace(low_db, high_db, TIME.size // 2 + 1) / 20)
    return np.fft.irfft(np.fft.rfft(WHITE) * gain, TIME.size)


def found(observed, reconstruction, mask, frames=FRAMES):
    """Return the estimated power of the noise in each frame (F, K)."""
    quiet = noise.quiet_power(frames, observed, reconstruction, mask)
    spectrum = noise.least_noise(frames, quiet, noise.loud_power(observed, frames.hop))
    return noise.noise_power(quiet, spectrum)


@pytest.mark.parametrize("level", [0.06, 0.2])
@pytest.mark.parametrize("color", ["white", "falling"])
def test_noise_is_measured_under_chopped_tones(color, level):
    hiss = level * (WHITE if color == "white" else colored())
    mask = chopped()
    power = found((TONES + hiss) * (1 - mask), 0.9 * TONES, mask).mean(1)
    true = np.mean(np.abs(FRAMES.stft(hiss)) ** 2, axis=1)
    smooth = np.array([np.median(true[max(0, f - 15) : f + 16]) for f in range(true.size)])
    error_db = 10 * np.log10(power / smooth)
    assert np.abs(error_db.mean()) < 1.5 and np.quantile(np.abs(error_db), 0.8) < 3
    level_db = 10 * np.log10(noise.mean_square(FRAMES, power) / np.mean(hiss**2))
    assert level_db == pytest.approx(0, abs=1)


@pytest.mark.parametrize("quiet, power", [(np.nan, 1.0), (1.0, 0.0)])
def test_no_noise_is_found_in_unknown_frames_or_silence(quiet, power):
    spectrum = noise.least_noise(FRAMES, np.full((FRAMES.f_pts, 80), quiet), power)
    np.testing.assert_array_equal(spectrum, np.zeros(FRAMES.f_pts))


@pytest.mark.parametrize("number", range(4))
def test_the_weights_choose_the_estimate(number):
    sound = TONES + 0.1 * np.random.default_rng(0).standard_normal(TONES.size)
    mask, drawn = np.zeros(sound.size, int), 0.5 * TONES  # a poor reconstruction
    quiet = noise.quiet_power(FRAMES, sound, drawn, mask)
    spectrum = noise.least_noise(FRAMES, quiet, noise.loud_power(sound, FRAMES.hop))
    weights = np.eye(4)[number, :, None] * np.ones(FRAMES.f_pts)
    result, noisy = noise.denoise(sound, mask, drawn, RATE, spectrum, weights, None)
    power = noise.noise_power(quiet, spectrum)
    estimates = noise.denoised(FRAMES, sound, drawn, power)
    assert noisy.all() and np.std(estimates, axis=0).mean() > 1e-3
    np.testing.assert_allclose(result, estimates[number], atol=1e-6)


def test_the_estimates_are_without_and_with_guidance():
    """White noise has the same power in all frames."""
    sound, drawn = TONES + 0.1 * WHITE, 0.5 * TONES
    power = np.full((FRAMES.f_pts, FRAMES.p_num(sound.size)), 0.01)
    expected = []
    assert 2 * SHORT.m_num == FRAMES.m_num == LONG.m_num / 2
    for number, frames in enumerate((SHORT, FRAMES, LONG, LONG)):
        own = np.full((frames.f_pts, 1), power[0, 0])
        if number % 2:
            expected.append(noise.guided_wiener(frames, sound, drawn, own))
        else:
            expected.append(noise.classic_wiener(frames, sound, own, again=1))
    found = noise.denoised(FRAMES, sound, drawn, power)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_weights_act_on_frequencies(number):
    """A smooth weight has the same effect in all frames."""
    sound, drawn = TONES + 0.1 * WHITE, 0.5 * TONES
    power = np.full((FRAMES.f_pts, FRAMES.p_num(sound.size)), 0.01)
    plain = noise.denoised(FRAMES, sound, drawn, power)[number]
    weight = 0.5 + 0.5 * np.cos(2 * np.pi * FRAMES.f / RATE)  # a filter of three coefficients
    found = noise.denoised(FRAMES, sound, drawn, power, weight * np.ones((4, 1)))[number]
    expected = np.convolve(plain, [0.25, 0.5, 0.25], "same")
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=2e-3)


def test_inner_products_of_spectra():
    signals = np.random.default_rng(2).standard_normal((3, 60_000))
    spectra = np.stack([FRAMES.stft(signal) for signal in signals])
    expected = np.einsum("ift,jft->fij", spectra, spectra.conj()).real
    found = noise.inner_products(FRAMES, signals)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("rate", [RATE, 11025])  # the latter's frames have other ratios than 2
def test_noise_keeps_its_place_in_other_frames(monkeypatch, rate):
    """Its power grows linearly over time and frequency, at the times and frequencies of frames."""
    powers, size = [], 4 * rate
    monkeypatch.setattr(
        noise,
        "guided_wiener",
        lambda frames, sound, _, power, weight: powers.append(power) or sound,
    )
    monkeypatch.setattr(
        noise,
        "classic_wiener",
        lambda frames, sound, power, again, weight: powers.append(power) or sound,
    )
    kinds = [noise.transform(rate, scale) for scale in (1, 0.5, 2)]
    times = [np.arange(f.p_min, f.p_max(size)) * f.hop for f in kinds]
    power, *expected = (
        (1 + frames.f[:, None]) * (1e5 + time) for frames, time in zip(kinds, times)
    )
    noise.denoised(kinds[0], np.ones(size), np.ones(size), power)
    assert [each.shape[0] for each in powers] == [kinds[k].f_pts for k in (1, 0, 2, 2)]
    np.testing.assert_allclose(powers[1], power, rtol=1e-6)
    for found, known, time in zip((powers[0], powers[2]), expected, times[1:]):
        inside = (time >= times[0][0]) & (time <= times[0][-1])
        # The power in a short frame is that at the nearest center, up to half a hop away.
        rtol = 0.51 * kinds[0].hop / 1e5
        np.testing.assert_allclose(found[:, inside], known[:, inside], rtol=rtol)


def test_short_loud_events_do_not_change_the_level_of_a_sound():
    sound = np.random.default_rng(0).standard_normal(160_000)
    level = noise.loud_power(sound, FRAMES.hop)
    assert level == pytest.approx(1, rel=0.1)  # a high quantile over frames of 512 samples
    sound[50_000:60_000] *= 1000
    assert noise.loud_power(sound, FRAMES.hop) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("rate, samples", [(16000, 20_001), (16000, 3000), (11025, 7000)])
def test_spectra_are_scipys_and_invert(rate, samples):
    frames, sound = noise.transform(rate), np.random.default_rng(0).standard_normal(samples)
    spectra = noise.stft(frames, sound)
    np.testing.assert_allclose(np.abs(spectra), np.abs(frames.stft(sound)), atol=1e-4)
    np.testing.assert_allclose(noise.istft(frames, spectra, samples), sound, atol=1e-5)
    kept = np.random.default_rng(1).random(spectra.shape)
    expected = frames.istft(frames.stft(sound) * kept, k1=samples)
    np.testing.assert_allclose(noise.istft(frames, spectra * kept, samples), expected, atol=1e-5)


def test_a_steady_tone_does_not_count_as_noise():
    steady = np.sin(2 * np.pi * 1000 * TIME)
    power = found(steady + 0.1 * WHITE, np.zeros_like(steady), 0 * chopped())  # an unknown tone
    assert 10 * np.log10(power.mean(1).max() / 1e-2) < 2


def test_noise_is_found_where_it_is():
    """It begins in the middle, 20 dB below the sound, and grows by 6 dB."""
    level = np.where(TIME < 2, 0, 0.04 * 10 ** (0.15 * (TIME - 2)))
    power = found(TONES + level * WHITE, 0.99 * TONES, 0 * chopped()).mean(0)
    time = FRAMES.t(TIME.size)
    assert not power[(time > 0) & (time < 1.9)].any()
    later = (time > 2.1) & (time < 3.9)
    true = 0.04 * 10 ** (0.15 * (time[later] - 2))
    assert np.abs(10 * np.log10(power[later] / true**2)).max() < 3


def test_a_brief_drop_of_the_noise_is_followed_to_about_1_db():
    """Elsewhere the level is that of 2.4 s. White noise has exponentially distributed powers."""
    level = np.where(np.abs(np.arange(300) - 150) < 3, 25.0, 100.0)
    quiet = level * np.random.default_rng(0).exponential(size=(513, level.size))
    power = noise.noise_power(quiet, np.ones(513)).mean(0)
    assert np.abs(10 * np.log10(power / level)).max() < 1.5


def test_a_clean_sound_without_a_steady_floor_has_no_noise():
    plucked = sum(np.exp(-20 * ((TIME - start) % 0.9)) * WHITE for start in (0, 0.4))
    assert not found(0.1 * plucked + TONES, TONES, 0 * chopped()).any()


def denoised(observed, mask, reconstruction):
    def restore(sound, missing):
        assert not sound[missing == 1].any()
        return reconstruction

    size = noise.typical_size(runs(mask))
    calibrated = noise.calibrate(observed, mask, RATE, restore, size)
    return noise.denoise(observed, mask, reconstruction, RATE, *calibrated)[0]


def test_wieners_gain_is_that_of_each_frequencys_powers():
    """In the DFT of one frame the gain is S / (S + noise), S being that of the reconstruction."""
    size = FRAMES.m_num
    tone = np.cos(2 * np.pi * 64 / size * np.arange(8 * size))
    level = np.abs(FRAMES.stft(tone)[64, 16]) ** 2
    power = np.full((FRAMES.f_pts, 1), level)  # too much for the sound's own power to count
    passed = noise.guided_wiener(FRAMES, 2 * tone, tone, power)
    middle = slice(4 * size, 5 * size)
    before, drawn, after = (
        np.fft.rfft(part[middle] * FRAMES.win) for part in (2 * tone, tone, passed)
    )
    gain = abs(drawn[64]) ** 2 / (abs(drawn[64]) ** 2 + level)
    assert 0.3 < gain < 0.9
    # A Hann frame spreads a tone over three frequencies; the outer two have a quarter of its power.
    side = abs(drawn[63]) ** 2 / (abs(drawn[63]) ** 2 + level)
    assert abs(after[64] / before[64]) == pytest.approx((2 * gain + side) / 3, abs=0.05)


@pytest.mark.parametrize("excess, passes", [(0.5, True), (2, False)])
def test_only_what_noise_cannot_be_passes_without_guidance(excess, passes):
    size = FRAMES.m_num
    tone = np.cos(2 * np.pi * 64 / size * np.arange(8 * size))
    peak = np.abs(FRAMES.stft(tone)[64, 16]) ** 2
    power = np.full((FRAMES.f_pts, 1), excess * peak / 8)
    found = noise.guided_wiener(FRAMES, tone, 0 * tone, power)
    assert np.any(found) == passes


RATIO = 0.3  # of the power of the noise to that of the sound, or less


def gaussian_in_noise():
    """A clean signal, and noise of known power, both white and Gaussian: the best gain is known."""
    clean, power = np.random.default_rng(5).standard_normal(TIME.size), RATIO * FRAMES.f_pts**0
    return clean, np.sqrt(power) * WHITE, np.full((FRAMES.f_pts, 1), power)


def weights_of(monkeypatch, functions, clean, hiss, power, mask=None):
    """Return the weights (n, F) that mix n functions of the noisy sound."""
    monkeypatch.setattr(
        noise, "denoised", lambda frames, sound, *rest: np.stack([f(sound) for f in functions])
    )
    mask = np.zeros(TIME.size, int) if mask is None else mask
    weights = noise.least_risk(FRAMES, clean + hiss, mask, 0 * clean, power)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    return weights


def mixed(monkeypatch, first, second, *given):
    """Return the weight (F,) of the first of two functions of the noisy sound."""
    return weights_of(monkeypatch, [second, first], *given)[1]


def test_the_weight_of_least_risk_is_wieners_gain(monkeypatch):
    """Mixing the noisy sound with nothing, the weight of least risk is S / (S + N)."""
    weight = mixed(monkeypatch, lambda y: y, lambda y: 0 * y, *gaussian_in_noise()) / (
        1 - (noise.CAUTION - 1) * RATIO
    )
    np.testing.assert_allclose(weight[64:-64], 1 / (1 + RATIO), atol=0.04)


@pytest.mark.parametrize("first", [True, False])
def test_a_perfect_estimate_has_all_the_weight(monkeypatch, first):
    clean, hiss, power = gaussian_in_noise()
    both = [lambda y: clean, lambda y: y][:: 1 if first else -1]
    weight = mixed(monkeypatch, *both, clean, hiss, power)
    np.testing.assert_allclose(weight, float(first), atol=0.06)


@pytest.mark.parametrize("gap", [0, 200])
def test_the_weight_has_almost_the_least_true_risk(monkeypatch, gap):
    """Two filters, of which one keeps low frequencies. Gaps are filled with noisy sound."""
    low = scipy.signal.firwin(65, 600, fs=RATE)
    filters = [lambda y: scipy.signal.fftconvolve(y, low, "same"), lambda y: 0.8 * y]
    mask, hiss = chopped(gap=gap), 0.2 * WHITE
    power = np.full((FRAMES.f_pts, 1), 0.2**2)
    weight = mixed(monkeypatch, *filters, TONES, hiss, power, mask)
    first, second = (FRAMES.stft((mask == 0) * (part(TONES + hiss) - TONES)) for part in filters)

    def risk(weight):
        return np.sum(np.abs(weight * first + (1 - weight) * second) ** 2)

    least = min(map(risk, np.linspace(0, 1, 101)))
    assert risk(weight[:, None]) < 1.02 * least < 0.9 * min(risk(0), risk(1))


def test_an_estimate_joins_the_mixture_of_those_before(monkeypatch):
    """A third estimate gets the weight that it gets beside the mixture of the first two."""
    low, high = (scipy.signal.firwin(65, 600, fs=RATE, pass_zero=zero) for zero in (True, False))
    functions = [
        lambda y: 0.5 * scipy.signal.fftconvolve(y, low, "same"),
        lambda y: scipy.signal.fftconvolve(y, low, "same"),
        lambda y: 0.8 * y + 0.3 * scipy.signal.fftconvolve(y, high, "same"),
    ]
    given = TONES, 0.4 * WHITE, np.full((FRAMES.f_pts, 1), 0.4**2)
    first, second = weights_of(monkeypatch, functions[:2], *given)[..., None]

    def both(sound):
        parts = [FRAMES.stft(function(sound)) for function in functions[:2]]
        return FRAMES.istft(first * parts[0] + second * parts[1], k1=sound.size)

    third = mixed(monkeypatch, functions[2], both, *given)
    expected = [(1 - third) * first[:, 0], (1 - third) * second[:, 0], third]
    assert 0.1 < np.mean(second) < 0.9 and 0.1 < np.mean(third) < 0.9
    np.testing.assert_allclose(weights_of(monkeypatch, functions, *given), expected, atol=0.02)


def test_weights_are_the_inverse_errors_in_artificial_gaps(monkeypatch):
    truth, mask = RNG.standard_normal(TIME.size), chopped()
    deviations = np.array([[0.1], [0.2], [0.4], [0.3], [0.25], [0.15]])

    def candidates(frames, sound, mask, reconstruction, power):
        missing = truth[mask == 1]
        return missing + deviations * RNG.standard_normal((6, missing.size))

    monkeypatch.setattr(noise, "candidates", candidates)
    *_, weights = noise.calibrate(truth * (1 - mask), mask, RATE, lambda sound, missing: sound, 160)
    expected = deviations.ravel() ** -4.0  # squared errors to the power -2
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=0.15)


@pytest.mark.parametrize("every", [800, 20_000])
def test_artificial_gaps_are_spread_between_the_gaps(every):
    mask = chopped(every=every)
    gaps = noise.artificial_gaps(runs(mask), mask.size, 160)
    assert 10 <= len(gaps) <= 16
    assert not any(mask[first:end].any() for first, end in gaps)
    assert set(np.ptp(gaps, axis=1)[1:-1]) == {160}  # less room is left at the ends
    assert np.ptp(gaps) > 0.8 * TIME.size


@pytest.mark.parametrize("samples, starts", [(16_000, range(750, 16_000, 1600)), (48_000, None)])
def test_artificial_gaps_are_sixteen_lengths_apart(samples, starts):
    """The sound between them shows how well a gap is filled. At most 16 are needed."""
    gaps = noise.artificial_gaps(np.zeros((0, 2), int), samples, 100)
    assert (np.ptp(gaps, axis=1) == 100).all()
    if starts:
        assert gaps[:, 0].tolist() == list(starts)
    else:
        assert len(gaps) == 16 and np.diff(gaps[:, 0]).min() >= 1600


def test_without_gaps_the_network_gets_all_the_weight():
    mask = np.zeros(TIME.size, int)
    *_, weights = noise.calibrate(TONES, mask, RATE, lambda sound, missing: sound)
    assert weights is None


@pytest.mark.parametrize("level_db", [-25, -15, -5])
def test_it_beats_the_network_and_the_classic_filter(level_db):
    level = 0.4 * 10 ** (level_db / 20)
    mask = chopped()
    observed = (TONES + level * WHITE) * (1 - mask)
    drawn = 0.9 * np.roll(TONES, 1)  # a network that errs in level and phase
    restored = denoised(observed, mask, drawn)
    power = np.full(FRAMES.f_pts, level**2)
    classic = noise.classic_wiener(FRAMES, np.where(mask == 1, drawn, observed), power)
    assert snr_db(TONES, restored) > max(
        snr_db(TONES, drawn) + 1, snr_db(TONES, classic) + 0.5 * (level_db > -20)
    )


def test_a_clean_sound_keeps_its_observed_samples():
    mask = chopped()
    restored = denoised(TONES * (1 - mask), mask, 0.9 * TONES)
    np.testing.assert_array_equal(restored[mask == 0], TONES[mask == 0])
    assert snr_db(TONES[mask == 1], restored[mask == 1]) > 25


@pytest.mark.parametrize("level_db", [-35, -30])
def test_gaps_do_not_raise_the_level_of_weak_noise(level_db):
    level, mask = 0.4 * 10 ** (level_db / 20), chopped(every=512)
    tones, white, mask = (part[: 2 * RATE] for part in (TONES, WHITE, mask))
    observed = (tones + level * white) * (1 - mask)
    restored = denoised(observed, mask, 0.1 * tones)  # a network that knows little of the sound
    assert snr_db(tones[mask == 0], restored[mask == 0]) > 2 - level_db


def test_noise_alone_is_removed():
    mask = chopped()
    restored = denoised(0.1 * WHITE * (1 - mask), mask, np.zeros_like(WHITE))
    assert np.mean(restored**2) < 0.02 * np.mean((0.1 * WHITE) ** 2)


def test_noise_is_the_same_in_frames_with_gaps():
    mask = chopped(gap=400, every=1024)
    quiet = noise.quiet_power(FRAMES, WHITE * (1 - mask), np.zeros_like(WHITE), mask)
    assert np.nanmean(quiet[1:-1, 4:-4]) == pytest.approx(1, rel=0.05)
    assert np.isnan(noise.quiet_power(FRAMES, WHITE, WHITE, np.ones_like(mask))[:, 4:-4]).all()


def test_a_loud_reconstruction_lets_the_sound_pass():
    size = FRAMES.m_num
    tone = np.cos(2 * np.pi * 64 / size * np.arange(8 * size))
    peak = np.abs(FRAMES.stft(tone)[64, 16]) ** 2
    power = np.full((FRAMES.f_pts, 1), peak / 1.5)
    passed = noise.guided_wiener(FRAMES, tone, 10 * tone, power)
    middle = slice(4 * size, 5 * size)
    assert snr_db(tone[middle], passed[middle]) > 25


def test_long_gaps_hold_the_reconstruction():
    mask = np.zeros(TIME.size, int)
    mask[8000:10400] = 1
    drawn = 0.9 * TONES
    found = denoised(TONES * (1 - mask), mask, drawn)
    np.testing.assert_allclose(found[mask == 1], drawn[mask == 1])


def test_gaps_are_filled_before_noise_is_removed():
    mask = chopped()
    observed = (TONES + 0.1 * WHITE) * (1 - mask)
    for found in (denoised(observed, mask, TONES), denoised(observed, mask, 0 * TONES)):
        assert snr_db(TONES[mask == 1], found[mask == 1]) > 12


def test_artificial_gaps_have_the_median_length_of_the_gaps():
    gaps = np.array([[100, 110], [1000, 1030], [2000, 2020]])
    chosen = noise.artificial_gaps(gaps, 3000, noise.typical_size(gaps))
    assert np.unique(np.ptp(chosen, axis=1)).tolist() == [20] and noise.typical_size(gaps[:0]) == 0


def test_artificial_gaps_touch_no_other_gap():
    mask = chopped(gap=600, every=1000)
    count, gaps = len(runs(mask)), noise.artificial_gaps(runs(mask), mask.size, 600)
    for first, end in gaps:
        mask[first:end] = 1
    assert len(runs(mask)) == count + len(gaps)


@pytest.mark.parametrize(
    "restore", [lambda sound, missing: sound, lambda sound, missing: TONES * (1 - missing)]
)
def test_a_network_that_copies_its_input_has_no_weight(restore):
    mask = chopped()
    *_, weights = noise.calibrate(TONES * (1 - mask), mask, RATE, restore, 160)
    assert weights[:4].sum() > 0.9


def test_the_noise_level_does_not_depend_on_the_mask():
    levels = []
    for gap in (160, 800):
        mask = chopped(gap=gap)
        levels.append(found((TONES + 0.1 * WHITE) * (1 - mask), TONES, mask).mean())
    assert levels[1] == pytest.approx(levels[0], rel=0.3)


@pytest.mark.parametrize("guide", [TONES, 0 * TONES])
def test_noise_is_removed_best_at_its_true_power(guide):
    observed = TONES + 0.1 * WHITE
    power = np.full((FRAMES.f_pts, 1), 0.1**2)
    found = [
        [snr_db(TONES, part) for part in noise.denoised(FRAMES, observed, guide, scale * power)]
        for scale in (0.2, 1, 5)
    ]
    np.testing.assert_array_equal(np.argmax(found, axis=0), 1)


def test_mean_square_of_a_spectrum_is_that_of_the_sound():
    """Parseval's theorem."""
    frame = np.random.default_rng(3).standard_normal(FRAMES.m_num)
    frame += 2 + 3 * np.cos(np.pi * np.arange(FRAMES.m_num))  # much at 0 Hz and at Nyquist
    power = np.abs(np.fft.rfft(frame)) ** 2
    assert noise.mean_square(FRAMES, power) == pytest.approx(np.sum(frame**2))


def test_silence_with_gaps_stays_silent():
    """All candidates for a gap are equally good."""
    mask = chopped()
    np.testing.assert_array_equal(denoised(0 * TONES, mask, 0 * TONES), 0)
