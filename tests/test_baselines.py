"""Baselines and oracles, against closed forms and NumPy's least squares."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal

import audio_utils
import baselines
from audio_utils import C_MAJOR, Notes, note_frequency, snr_db
from corrupt import CORRUPTIONS

RATE = 16000


@pytest.fixture(scope="module")
def chopped_notes():
    tone, clean, index = (part.numpy() for part in Notes().windows("training", 600, (5, 6)))
    chopped, mask = (part.numpy() for part in CORRUPTIONS["block"](clean, 0.2, (7, 8)))
    return tone, chopped, mask, index


def test_interpolation_draws_straight_lines():
    signal = np.linspace(0, 1, 11)[None]
    mask = np.zeros_like(signal)
    mask[0, 3:6] = 1
    np.testing.assert_allclose(baselines.interpolate(signal * (1 - mask), mask), signal)
    mask[0, :3] = 1  # at the beginning: the first observed sample
    np.testing.assert_allclose(baselines.interpolate(signal * (1 - mask), mask)[0, :6], 0.6)


def test_autoregression_continues_a_sum_of_sinusoids():
    time = np.arange(1024) / RATE
    signal = (np.sin(2 * np.pi * 500 * time) + 0.5 * np.sin(2 * np.pi * 1300 * time + 1))[None]
    mask = np.zeros_like(signal)
    mask[0, 450:500] = 1
    filled = baselines.autoregress(signal * (1 - mask), mask)
    np.testing.assert_array_equal(filled[mask == 0], signal[mask == 0])
    np.testing.assert_array_equal(baselines.autoregress(signal, mask), filled)  # the gap is unseen
    assert snr_db(signal[mask == 1], filled[mask == 1]) > 25
    assert not baselines.autoregress(np.zeros((1, 64)), np.ones((1, 64))).any()
    np.testing.assert_array_equal(baselines.autoregress(signal, 0 * mask), signal)


def test_autoregression_is_close_to_the_best_linear_estimate():
    """Three resonances; the best estimate follows from a Gaussian process's covariance."""
    poles = np.array([0.995, 0.99, 0.99]) * np.exp(1j * np.array([0.3, 0.9, 1.7]))
    coefficients = np.poly([*poles, *poles.conj()]).real
    noise = np.random.default_rng(0).standard_normal((40, 6000))
    signals = scipy.signal.lfilter([1], coefficients, noise)[:, -1024:]
    mask = np.zeros_like(signals)
    mask[:, 480:540] = 1
    gap = mask[0] == 1
    response = scipy.signal.lfilter([1], coefficients, np.eye(1, 20_000)[0])
    correlation = np.correlate(response, response, "full")[19_999:]
    covariance = scipy.linalg.toeplitz(correlation[:1024])
    weights = np.linalg.solve(covariance[np.ix_(~gap, ~gap)], covariance[np.ix_(~gap, gap)])
    best = snr_db(signals[:, gap], signals[:, ~gap] @ weights)
    reached = snr_db(signals[:, gap], baselines.autoregress(signals * ~gap, mask)[:, gap])
    assert best - 1.2 < reached < best  # 0.94 dB below; with one iteration, 1.6


def test_long_autoregression_fills_a_sinusoid_in_blocks():
    signal = np.sin(2 * np.pi * 500 * np.arange(5000) / RATE)
    mask = np.zeros(signal.size)
    mask[[*range(700, 750), *range(3000, 3080)]] = 1
    filled = baselines.autoregress_long(signal * (1 - mask), mask, 1024)
    np.testing.assert_allclose(filled[mask == 0], signal[mask == 0], atol=1e-6)
    assert snr_db(signal[mask == 1], filled[mask == 1]) > 25


def test_the_fit_of_the_right_note_is_numpys_least_squares(chopped_notes):
    _, chopped, mask, index = chopped_notes
    fits = baselines.right_note(chopped, mask, Notes(), index)
    for row in range(5):
        angle = 2 * np.pi * note_frequency(C_MAJOR[index[row]]) * np.arange(1024) / RATE
        basis, shown = np.stack([np.sin(angle), np.cos(angle)], 1), mask[row] == 0
        weights = np.linalg.lstsq(basis[shown], chopped[row, shown], rcond=None)[0]
        np.testing.assert_allclose(fits[row], basis @ weights, atol=1e-6)


def test_partials_above_the_nyquist_frequency_are_not_fitted():
    sound, rng = Notes(("A4",), "harmonic", 3000, 256), np.random.default_rng(0)
    chopped, mask = rng.standard_normal((4, 256)), (rng.random((4, 256)) < 0.2).astype(float)
    fits = baselines.right_note(chopped, mask, sound, np.zeros(4, int))
    angle = 2 * np.pi * 440 * np.outer(np.arange(256), [1, 2, 3]) / 3000  # the fourth: 1,760 Hz
    basis = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    for row in range(4):
        shown = mask[row] == 0
        weights = np.linalg.lstsq(basis[shown], chopped[row, shown], rcond=None)[0]
        np.testing.assert_allclose(fits[row], basis @ weights, atol=1e-6)


def test_the_oracles_error_is_as_predicted(chopped_notes):
    tone, chopped, mask, index = chopped_notes
    reached = snr_db(tone, baselines.right_note(chopped, mask, Notes(), index))
    # Error power 2 s^2 / N_obs; over 2 * 600 degrees of freedom a standard error of 0.18 dB.
    expected = 10 * np.log10(0.125 / (2 * 0.04 / (1024 - 205)))
    assert reached == pytest.approx(expected, abs=0.6)
    best = baselines.best_note(chopped, mask, Notes())
    assert snr_db(tone, best) == pytest.approx(reached, abs=0.2)


@pytest.mark.parametrize("timbre, roughly", [("sine", 0.04), ("harmonic", 0.04), ("plucked", 0.08)])
def test_the_oracles_error_grows_with_the_number_of_partials(timbre, roughly):
    # All 3,000 windows are of one note, so they share one basis. Each has 2 H unknowns.
    tone, clean, index = (
        part.numpy() for part in Notes(("A4",), timbre).windows("training", 3000, (1, 2))
    )
    chopped, mask = (part.numpy() for part in CORRUPTIONS["block"](clean, 0.2, (3, 4)))
    fits = baselines.right_note(chopped, mask, Notes(("A4",), timbre), index)
    error = np.mean((fits - tone) ** 2)
    count, rate = {"sine": (1, 0), "harmonic": (6, 0), "plucked": (6, 3)}[timbre]
    number, time = np.arange(1, count + 1)[:, None], np.arange(1024) / RATE
    wave = np.exp(1j * 2 * np.pi * 440 * number * time - rate * number * time)
    basis = np.concatenate([wave.real, wave.imag])
    shown = [basis[:, row == 0] for row in mask[:300]]
    traces = [np.trace(np.linalg.inv(part @ part.T) @ basis @ basis.T) for part in shown]
    exact = 0.04 * np.mean(traces) / 1024
    assert error == pytest.approx(exact, rel=0.04)  # standard error: 1 to 2%
    assert error == pytest.approx(2 * count * 0.04 / (1024 - 205), rel=roughly)
    assert np.mean(fits - tone) == pytest.approx(0, abs=1e-3)
    best = baselines.best_note(chopped[:300], mask[:300], Notes(timbre=timbre))
    assert snr_db(tone[:300], best) == pytest.approx(snr_db(tone[:300], fits[:300]), abs=0.2)


def test_the_oracle_of_a_plucked_scale_follows_its_decay():
    notes = Notes(timbre="plucked")
    tone, clean = notes.long(0)
    mask = np.zeros(tone.size)
    np.testing.assert_allclose(baselines.right_scale(tone, mask, notes), tone, atol=1e-7)
    expected = 10 * np.log10(0.125 / (12 * 0.04 / 8000))  # 84 degrees of freedom
    reached = snr_db(tone, baselines.right_scale(clean, mask, notes))
    assert reached == pytest.approx(expected, abs=1.5)


def test_too_few_samples_for_a_fit_are_no_error():
    mask = np.ones((2, 1024))
    mask[1, 500:503] = 0
    weights, basis, _ = baselines.fit_note(1 - mask, mask, "C4", Notes(timbre="harmonic"))
    fits = weights @ basis
    assert not fits[0].any() and np.isfinite(fits).all()


def test_the_oracle_of_the_scale_uses_whole_notes():
    tone, clean = Notes().long(0)
    mask = (np.random.default_rng(1).random(tone.size) < 0.2).astype(float)
    reached = snr_db(tone, baselines.right_scale(clean * (1 - mask), mask, Notes()))
    expected = 10 * np.log10(0.125 / (2 * 0.04 / 6400))  # 14 degrees of freedom
    assert reached == pytest.approx(expected, abs=3)


def test_note_fraction_separates_single_notes_from_mixtures():
    time = np.arange(1024) / RATE
    c, a = (np.sin(2 * np.pi * note_frequency(note) * time + 0.3) for note in ("C4", "A4"))
    fraction, index = baselines.note_fraction(np.stack([c, a, c + a, 0 * c]), Notes())
    np.testing.assert_allclose(fraction[:2], 1, atol=1e-6)
    assert list(index[:2]) == [0, 5]
    assert fraction[2] == pytest.approx(0.5, abs=0.05) and fraction[3] == 0  # silence
    for timbre in audio_utils.TIMBRES:
        notes = Notes(timbre=timbre)
        tone, _, played = notes.windows("training", 50, (1, 2))
        fraction, index = baselines.note_fraction(tone.numpy(), notes)
        np.testing.assert_allclose(fraction, 1, atol=1e-5)
        np.testing.assert_array_equal(index, played)


def test_effective_number():
    assert baselines.effective_number(np.arange(7)) == pytest.approx(7)
    assert baselines.effective_number(np.array([3, 3, 3])) == pytest.approx(1)
    assert baselines.effective_number(np.array([])) == 0


def test_the_nearest_fill_compares_only_outside_the_hole():
    training = np.array([[[0, 0], [0, 0]], [[255, 51], [204, 153]]], np.uint8)
    mask = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    corrupted = np.array([[[0.9, 0.0], [0.8, 0.0]]])  # nearer to the first by all four pixels
    filled = baselines.nearest_fill(corrupted, mask, training)
    np.testing.assert_allclose(filled, [[[0.9, 0.2], [0.8, 0.6]]])


@pytest.mark.parametrize("block", [1, 3, 7, 20])
def test_the_nearest_image_does_not_depend_on_blocks(monkeypatch, block):
    monkeypatch.setattr(baselines, "NEAREST_BLOCK", block)
    rng = np.random.default_rng(0)
    training, test = (rng.integers(0, 256, (count, 3, 2), np.uint8) for count in (20, 50))
    mask = (rng.random(test.shape) < 0.3).astype(float)
    corrupted = test / 255 * (1 - mask)
    distances = ((1 - mask[:, None]) * (corrupted[:, None] - training / 255) ** 2).sum((2, 3))
    expected = np.where(mask == 1, training[distances.argmin(1)] / 255, corrupted)
    filled = baselines.nearest_fill(corrupted, mask, training)
    np.testing.assert_allclose(filled, expected, atol=1e-6)


def test_the_classifier_gives_the_posterior_of_gaussian_classes():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(12_000) < 0.8, 7, 2)  # any two labels
    spreads = {7: np.diag([3.0, 1.0, 1.0]), 2: np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 3.0]])}
    means = {7: np.array([1.0, 0, 0]), 2: np.array([-1.0, 1, 0])}
    codes = np.stack([means[kind] + spreads[kind] @ rng.standard_normal(3) for kind in labels])
    basis = np.linalg.qr(rng.standard_normal((16, 3)))[0].T
    images = np.round(128 + 10 * codes @ basis).clip(0, 255).astype(np.uint8).reshape(-1, 4, 4)
    classify = baselines.digit_classifier(images[:9000], labels[:9000])
    kinds, confidence = classify(images[9000:].reshape(-1, 16) / 255)
    two, seven = (
        scipy.stats.multivariate_normal(means[kind], spreads[kind] @ spreads[kind].T)
        for kind in (2, 7)
    )
    odds = 0.8 * seven.pdf(codes[9000:]) / (0.2 * two.pdf(codes[9000:]))
    posterior = odds / (1 + odds)
    assert np.mean(kinds != np.where(posterior > 0.5, 7, 2)) < 0.04
    assert np.mean(np.abs(np.where(kinds == 7, confidence, 1 - confidence) - posterior)) < 0.02
    # The confidence is calibrated: it is the fraction of right answers.
    assert np.mean(confidence) == pytest.approx(np.mean(kinds == labels[9000:]), abs=0.02)


def test_the_classifier_learns_from_few_or_sorted_images():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 300)  # sorted: the first thousand hold four classes
    means = rng.uniform(100, 130, (10, 16, 16))
    images = (means[labels] + rng.normal(0, 20, (3000, 16, 16))).clip(0, 255).astype(np.uint8)
    flat = images.reshape(-1, 256) / 255
    few = np.arange(3000) % 100 == 0
    for learned in (few, np.arange(3000) % 3 > 0):
        kinds, _ = baselines.digit_classifier(images[learned], labels[learned])(flat[~learned])
        assert np.mean(kinds == labels[~learned]) > 0.95


@pytest.mark.parametrize(
    "images", [np.zeros((3, 4, 4)), 80 * np.arange(48).reshape(3, 4, 4) % 251, np.eye(4)[None, :]]
)
def test_the_classifier_needs_only_one_image_per_class(images):
    images = images.astype(np.uint8)
    classify = baselines.digit_classifier(images, np.arange(len(images)))
    kinds, confidence = classify(images.reshape(-1, 16) / 255)
    assert np.isfinite(confidence).all()
    if np.ptp(images, axis=0).any():
        assert list(kinds) == [0, 1, 2] and (confidence > 0.9).all()


@pytest.mark.parametrize(
    "samples, missing, order", [(1024, 1, 5), (1024, 60, 182), (1024, 205, 341), (60, 12, 20)]
)
def test_the_order_of_autoregression_follows_the_gap(monkeypatch, samples, missing, order):
    """It is 3 M + 2, as in Janssen et al. 1986, but at most a third of the samples."""
    orders, fit = [], baselines.autoregression.fit
    monkeypatch.setattr(
        baselines.autoregression, "fit", lambda row, order: orders.append(order) or fit(row, order)
    )
    mask = np.zeros((1, samples))
    mask[0, samples // 3 : samples // 3 + missing] = 1
    signal = np.random.default_rng(0).standard_normal((1, samples))
    baselines.autoregress(signal * (1 - mask), mask)
    assert orders == [order] * baselines.JANSSEN_ITERATIONS


def test_the_classifier_allows_for_the_spread_of_classes():
    """Two classes of the same mean differ only in their variance: 4 and 36 levels squared."""
    rng = np.random.default_rng(0)
    labels = np.arange(6000) % 2
    spread = np.where(labels, 6, 2)[:, None]
    codes = spread * rng.standard_normal((6000, 4))
    images = np.round(128 + codes).clip(0, 255).astype(np.uint8).reshape(-1, 2, 2)
    classify = baselines.digit_classifier(images[:4000], labels[:4000])
    kinds, _ = classify(images[4000:].reshape(-1, 4) / 255)
    squares = np.sum((images[4000:].reshape(-1, 4) - 128.0) ** 2, axis=1)
    # Bayes' rule: the densities are equal where squares / 2 (1/4 - 1/36) = 4 log 3.
    best = squares > 2 * 4 * np.log(3) / (1 / 4 - 1 / 36)
    assert np.mean(kinds != best) < 0.03


def test_the_classifier_learns_from_a_limited_number_of_images(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 4, 4), np.uint8), rng.integers(0, 3, 90)
    first = baselines.digit_classifier(images[:60], labels[:60])
    monkeypatch.setattr(baselines, "CLASSIFIER_IMAGES", 60)
    limited = baselines.digit_classifier(images, labels)
    shown = images.reshape(90, 16) / 255
    for ours, theirs in zip(limited(shown), first(shown)):
        np.testing.assert_array_equal(ours, theirs)
