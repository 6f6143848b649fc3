"""Gaps filled by autoregression, against SciPy's least squares and closed forms."""

import numpy as np
import pytest
import scipy

from audio_utils import snr_db
from autoregression import fit, interpolate, interpolate_scattered
from signals import fill_gaps
from signals.fill_gaps import fill, fill_each
from signals.gaps import inside

RATE = 16000
RESONANCES = np.poly(
    np.concatenate([[0.97 * np.exp(0.4j), 0.97 * np.exp(-0.4j)], 0.9 * np.exp([1.5j, -1.5j])])
).real


def filled(signal, gaps):
    """Fill the gaps, and check that nothing else changes. Returns the result and the mask."""
    missing = inside(np.array(gaps).reshape(-1, 2), 0, len(signal))
    corrupted = np.where(missing, 12345.0, signal)  # values in the gaps must not matter
    result = fill(corrupted, np.array(gaps), RATE)
    np.testing.assert_array_equal(result[~missing], np.asarray(signal)[~missing])
    return result, missing


def tones(samples, frequencies=(300, 700, 1900)):
    return sum(np.sin(2 * np.pi * f * np.arange(samples) / RATE + f) for f in frequencies)


@pytest.mark.parametrize("first", [300, 3])
def test_interpolation_is_scipys_least_squares(first):
    """Before the signal there is silence, which matters if a gap has few samples before it."""
    signal = scipy.signal.lfilter([1], RESONANCES, np.random.default_rng(0).standard_normal(600))
    gap = np.arange(first, first + 30)
    rows = scipy.linalg.toeplitz(np.append(RESONANCES, np.zeros(595)), np.eye(1, 600)[0])
    known = np.setdiff1d(np.arange(600), gap)
    best = scipy.linalg.lstsq(rows[:, gap], -rows[:, known] @ signal[known])[0]
    for found in (
        interpolate(signal, first, first + 30, RESONANCES),
        interpolate_scattered(signal, gap, RESONANCES),
    ):
        np.testing.assert_allclose(found, best, atol=1e-9)


@pytest.mark.parametrize("first, end", [(0, 30), (570, 600)])
def test_at_the_ends_it_extrapolates(first, end):
    """The recursion continues the four samples next to the gap."""
    signal = scipy.signal.lfilter([1], RESONANCES, np.random.default_rng(0).standard_normal(600))
    line = list(signal[end:][::-1] if first == 0 else signal[:first])
    for _ in range(30):
        line.append(-RESONANCES[1:] @ line[: -RESONANCES.size : -1])
    ahead = np.array(line[-30:])
    expected = ahead[::-1] if first == 0 else ahead
    np.testing.assert_allclose(interpolate(signal, first, end, RESONANCES), expected, atol=1e-9)


@pytest.mark.parametrize("expected", [RESONANCES, [1, -0.9], [1]])
def test_the_coefficients_of_a_known_process_are_found(expected):
    noise = np.random.default_rng(1).standard_normal(100_000)
    signal = scipy.signal.lfilter([1], expected, noise)
    for taper in (1.0, np.hanning(signal.size)):
        found = fit(signal, len(expected) - 1, taper)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_it_is_close_to_the_best_linear_estimate():
    """The best estimate follows from the closed-form covariance of a Gaussian process."""
    noise = np.random.default_rng(0).standard_normal(260_000)
    signal = scipy.signal.lfilter([1], RESONANCES, noise)[10_000:]
    gaps = np.arange(5000, 245_000, 5000)[:, None] + [0, 30]
    response = scipy.signal.lfilter([1], RESONANCES, np.eye(1, 4000)[0])
    matrix = scipy.linalg.toeplitz(np.correlate(response, response, "full")[3999:][:630])
    near, hidden = np.r_[0:300, 330:630], np.arange(300, 330)
    weights = np.linalg.solve(matrix[np.ix_(near, near)], matrix[np.ix_(near, hidden)])
    best = np.concatenate([signal[first - 300 : end + 300][near] @ weights for first, end in gaps])
    result, missing = filled(signal, gaps)
    assert 3 < snr_db(signal[missing], best) < 20
    assert snr_db(signal[missing], result[missing]) > snr_db(signal[missing], best) - 1.8


@pytest.mark.parametrize("gap", [(9000, 9020), (9000, 9320), (9000, 10_000)])
def test_a_sum_of_sinusoids_is_restored(gap):
    result, missing = filled(tones(20_000), [gap])
    assert snr_db(tones(20_000)[missing], result[missing]) > 60


@pytest.mark.parametrize("milliseconds", [2, 5, 20, 60])
def test_white_noise_is_not_continued(milliseconds):
    noise = np.random.default_rng(2).standard_normal(200_000)
    gaps = np.arange(5000, 195_000, 6000)[:, None] + [0, 16 * milliseconds]
    result, missing = filled(noise, gaps)
    assert np.mean(result[missing] ** 2) < 0.05
    assert snr_db(noise[missing], result[missing]) > -0.3


def test_gaps_at_the_beginning_and_the_end():
    result, missing = filled(tones(20_000), [[0, 200], [19_800, 20_000]])
    assert snr_db(tones(20_000)[missing], result[missing]) > 20


@pytest.mark.parametrize("spacing, size", [(1024, 205), (512, 150)])
def test_gaps_close_together(spacing, size):
    result, missing = filled(tones(16_384), np.arange(300, 16_000, spacing)[:, None] + [0, size])
    assert snr_db(tones(16_384)[missing], result[missing]) > 35


@pytest.mark.parametrize("between", [0, 1, 20])
def test_gaps_side_by_side(between):
    gaps = [[9000, 9100], [9100 + between, 9200 + between]]
    result, missing = filled(tones(20_000), gaps)
    assert snr_db(tones(20_000)[missing], result[missing]) > 60


def test_contexts_are_weighted_to_suit_the_sound(monkeypatch):
    """Tones close in frequency need a long context, a chirp needs a short one."""
    time = np.arange(40_000) / RATE
    sounds = {
        "close": tones(40_000, [440, 446, 1000, 1006]),
        "chirp": sum(np.sin(n * 2 * np.pi * (200 * time + 60 * time**2)) / n for n in range(1, 6)),
    }
    reached = {name: [] for name in sounds}
    for contexts in (fill_gaps.CONTEXTS, ((0.256, 0.032),), ((0.032, 0.008),)):
        monkeypatch.setattr(fill_gaps, "CONTEXTS", contexts)
        for name, signal in sounds.items():
            noisy = signal + 1e-2 * np.random.default_rng(1).standard_normal(signal.size)
            result, missing = filled(noisy, np.arange(8000, 32_000, 8000)[:, None] + [0, 320])
            reached[name].append(snr_db(noisy[missing], result[missing]))
    _, close_long, close_short = reached["close"]
    _, chirp_long, chirp_short = reached["chirp"]
    assert close_long > close_short + 3 and chirp_short > chirp_long + 3
    for mixture, *single in reached.values():
        assert mixture > max(single) - 1.5


def test_a_long_gap_in_tones_is_filled_like_a_short_one():
    """Contexts shorter than the gap would cost 15 dB at 150 ms, so they are left out."""
    signal = tones(2 * RATE) + 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    for size in (800, 1600, 2400):
        gap = slice(RATE, RATE + size)
        result, _ = filled(signal, [(gap.start, gap.stop)])
        assert snr_db(signal[gap], result[gap]) > 19


def test_only_the_sound_nearby_matters():
    rng = np.random.default_rng(3)
    signal = tones(60_000) + 0.1 * rng.standard_normal(60_000)
    gap = [30_000, 30_320]
    result, missing = filled(signal, [gap])
    part, there = filled(signal[20_007:40_000], [[first - 20_007 for first in gap]])
    np.testing.assert_allclose(part[there], result[missing], atol=1e-9)
    others, _ = filled(100 * rng.standard_normal(20_000), [[5000, 5320]])
    signal[:15_000] = others[:15_000]
    again, _ = filled(signal, [[5000, 5320], gap, [55_000, 55_100]])
    np.testing.assert_allclose(again[slice(*gap)], result[missing], atol=1e-9)


def test_gaps_are_filled_beside_the_final_values_of_others(monkeypatch):
    """Gaps before a gap are already filled."""
    given, mixture = [], fill_gaps._mixture
    monkeypatch.setattr(
        fill_gaps, "_mixture", lambda *each: given.append((*each[:2],)) or mixture(*each)
    )
    gaps = np.arange(300, 16_000, 1024)[:, None] + [0, 205]
    result, _ = filled(tones(16_384), gaps)
    for (first, _), (window, (start, _)) in zip(gaps, given, strict=True):
        np.testing.assert_array_equal(window[:start], result[first - start : first])


def test_it_reads_only_what_is_near():
    signal, gaps = tones(200_000), [[first, first + 320] for first in range(8000, 192_000, 8000)]
    sizes = []

    def read(first, end):
        sizes.append(end - first)
        return np.where(inside(np.array(gaps), first, end), 0, signal[first:end])

    values = list(fill_each(read, gaps, signal.size, RATE))
    assert [list(value[:2]) for value in values] == gaps and max(sizes) < RATE
    expected, _ = filled(signal, gaps)
    for first, end, value in values:
        np.testing.assert_array_equal(value, expected[first:end])


def test_long_and_crowded_gaps_are_not_filled():
    signal = tones(40_000)
    crowded = [[first, first + 8] for first in range(9000, 20_000, 40)]
    for gaps in ([[10_000, 15_000]], [[0, 40_000]], crowded):
        known = np.where(inside(np.array(gaps), 0, signal.size), 0, signal)

        def read(first, end, known=known):
            return known[first:end]

        found = list(fill_each(read, gaps, signal.size, RATE))
        middle = found[len(found) // 2]
        assert middle[2] is None and np.isfinite(filled(signal, gaps)[0]).all()


def test_scale_does_not_matter_beside_a_gap_left_unfilled():
    """What is not filled counts as 0. Any other value would not scale with the sound."""
    soft = 1e-3 * tones(RATE)
    gaps = [(3000, 8000), (8200, 8280)]  # the first is too long
    expected = fill(1e3 * soft, gaps, RATE) / 1e3
    np.testing.assert_allclose(fill(soft, gaps, RATE), expected, atol=1e-9)
    assert np.abs(expected[8200:8280]).max() > 1e-4


def test_silence_and_whole_or_tiny_signals():
    assert not filled(np.zeros(9000), [[0, 100], [4000, 4320]])[0].any()
    assert not fill(np.zeros(0), np.zeros((0, 2), int), RATE).size
    filled(tones(3000), [])
    for samples in (1, 3, 50):
        assert np.isfinite(filled(np.ones(samples), [[samples // 2, samples // 2 + 1]])[0]).all()


@pytest.mark.parametrize("sizes", [(400, 40), (40, 400), (40, 40)])
def test_gaps_that_almost_touch_are_filled_as_one(sizes):
    """They are merged at up to a quarter of the shorter gap."""
    sound = tones(4000)
    for between, merged in ((10, True), (11, False)):
        second = 1000 + sizes[0] + between
        gaps = [(1000, 1000 + sizes[0]), (second, second + sizes[1])]
        stretches = [
            (first, end) for first, end, _ in fill_each(lambda a, b: sound[a:b], gaps, 4000, RATE)
        ]
        assert stretches == ([(1000, second + sizes[1])] if merged else gaps)


def test_only_the_nearby_part_of_a_long_gap_counts():
    """A short gap is filled if at most half of the first context on both sides is missing."""
    sound, short = tones(30_000), (20_000, 20_100)
    context = round(fill_gaps.CONTEXTS[0][0] * RATE)
    for first, end in ((9000, 20_000 - context // 4), (20_100 + context // 4, 29_000)):
        gaps = sorted([short, (first, end)])
        values = {
            gap[0]: found for *gap, found in fill_each(lambda a, b: sound[a:b], gaps, 30_000, RATE)
        }
        assert values[20_000] is not None and values[first] is None


@pytest.mark.parametrize("count", [8, 9])
def test_at_most_eight_gaps_within_64_ms_are_filled(count):
    """With more, too little is observed for the fit."""
    sound = tones(6000)
    gaps = [(first, first + 8) for first in range(3000, 3000 + 100 * count, 100)]
    found = [values for *_, values in fill_each(lambda a, b: sound[a:b], gaps, 6000, RATE)]
    assert [values is not None for values in found] == [count == 8] * count


@pytest.mark.parametrize("size, highest", [(200, 512), (700, 700)])
def test_the_order_is_at_most_512_or_the_gaps_length(monkeypatch, size, highest):
    """At 48 kHz, 32 ms would be an order of 1536. A shorter context has 8 ms, an order of 384."""
    orders = []
    monkeypatch.setattr(
        fill_gaps, "fit", lambda x, order, w: orders.append(order) or fit(x, order, w)
    )
    sound = tones(60_000)
    list(fill_each(lambda a, b: sound[a:b], [(30_000, 30_000 + size)], sound.size, 48_000))
    assert max(orders) == highest and min(orders) == 384
