"""Gaps filled by autoregression, against closed forms and by what no filling may do."""

import numpy as np
import pytest
import scipy

from audio_utils import snr_db
from media.fill_gaps import autoregress, fill

RATE = 16000


def filled(signal, gaps, network=None):
    """The signal filled from what is outside the gaps alone."""
    signal = np.array(signal, float)
    chopped = signal.copy()
    for first, end in gaps:
        chopped[first:end] = 12345.0  # whatever is there must not matter
    result = fill(chopped, np.array(gaps), network)
    observed = np.ones(signal.size, bool)
    for first, end in gaps:
        observed[first:end] = False
    np.testing.assert_array_equal(result[observed], signal[observed])
    return result, ~observed


def tones(samples, frequencies):
    return sum(np.sin(2 * np.pi * f * np.arange(samples) / RATE + f) for f in frequencies)


def test_it_comes_near_the_best_linear_estimate_of_a_known_process():
    """A resonance: covariance from its impulse response; the best estimate of a gap from 300 samples on each side."""
    denominator = np.real(np.poly(np.r_[0.97 * np.exp(1j * np.array([0.4, -0.4])), 0.9 * np.exp([1.5j, -1.5j])]))
    noise = np.random.default_rng(0).standard_normal(260_000)
    signal = scipy.signal.lfilter([1], denominator, noise)[10_000:]
    gaps = np.arange(5000, 245_000, 5000)[:, None] + [0, 30]
    response = scipy.signal.lfilter([1], denominator, np.eye(1, 4000)[0])
    covariance = np.correlate(response, response, "full")[3999:][:630]
    near, hidden = np.r_[0:300, 330:630], np.arange(300, 330)
    matrix = scipy.linalg.toeplitz(covariance)
    weights = np.linalg.solve(matrix[np.ix_(near, near)], matrix[np.ix_(near, hidden)])
    best = np.concatenate([signal[first - 300 : end + 300][near] @ weights for first, end in gaps])
    result, missing = filled(signal, gaps)
    truth = signal[missing]
    assert 3 < snr_db(truth, best) < 20
    assert snr_db(truth, result[missing]) > snr_db(truth, best) - 1


def test_long_context_for_what_hardly_changes_and_short_for_what_does():
    """Two close tones need a long look; a chirp with its partials is another sound a moment later."""
    time = np.arange(40_000) / RATE
    close = tones(40_000, [440, 443.5, 1000, 1004])
    chirp = sum(np.sin(n * 2 * np.pi * (200 * time + 250 * time**2)) / n for n in range(1, 6))
    gap, ways = (20_000, 20_320), ((8192, 512), (512, 128))
    for signal, sign in ((close, 1), (chirp, -1)):
        noisy = signal + 1e-2 * np.random.default_rng(1).standard_normal(signal.size)
        result, missing = filled(noisy, [gap])
        long, short = (snr_db(noisy[missing], autoregress(noisy * ~missing, [gap], *way)[0]) for way in ways)
        assert sign * (long - short) > 3
        assert snr_db(noisy[missing], result[missing]) > max(long, short) - 1


def test_white_noise_is_not_continued():
    noise = np.random.default_rng(2).standard_normal(100_000)
    result, missing = filled(noise, np.arange(5000, 95_000, 6000)[:, None] + [0, 320])
    assert np.mean(result[missing] ** 2) < 0.05
    assert snr_db(noise[missing], result[missing]) > -0.2


def test_gaps_at_the_very_beginning_and_end():
    signal = tones(20_000, [300, 700, 1900])
    result, missing = filled(signal, [[0, 200], [19_800, 20_000]])
    assert snr_db(signal[missing], result[missing]) > 20


def test_gaps_close_together():
    signal = tones(8192, [300, 700, 1900, 2500])
    result, missing = filled(signal, np.arange(300, 8000, 512)[:, None] + [0, 200])
    assert snr_db(signal[missing], result[missing]) > 25


@pytest.mark.parametrize("gap", [[9000, 12_000], [10, 29_990], [0, 30_000], [5000, 25_000]])
def test_a_gap_longer_than_any_context_does_not_run_away(gap):
    signal = tones(30_000, [300, 700])
    result, _ = filled(signal, [gap])
    assert np.isfinite(result).all() and np.abs(result).max() < 4


def test_silence_stays_silence_and_nothing_missing_stays_the_same():
    assert not filled(np.zeros(9000), [[4000, 4320], [0, 100]][::-1])[0].any()
    assert not fill(np.zeros(0), np.zeros((0, 2), int)).size
    filled(tones(3000, [300]), np.zeros((0, 2), int))


def test_a_network_that_knows_is_believed_and_one_that_does_not_is_not():
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(30_000)
    result, missing = filled(noise, [[10_000, 10_320]], noise + 0.01 * rng.standard_normal(noise.size))
    assert snr_db(noise[missing], result[missing]) > 25  # nothing else can know noise
    signal = tones(30_000, [300, 700]) + 1e-3 * noise
    alone, missing = filled(signal, [[10_000, 10_320]])
    misled, _ = filled(signal, [[10_000, 10_320]], rng.standard_normal(30_000))
    assert snr_db(signal[missing], misled[missing]) > snr_db(signal[missing], alone[missing]) - 1
