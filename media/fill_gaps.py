"""Fill the gaps of a long sound by autoregression with several lengths of context, each as far as it can be trusted.

Signals are (T,), any unit, any rate; gaps are stretches (n, 2) of samples, [first, end), sorted and apart.
"""

import numpy as np
import scipy  # its parts load when first used: --help needs none of them

CONTEXTS = ((512, 128), (1024, 256), (2048, 512), (4096, 32), (4096, 512), (8192, 512))  # samples each side, order
FIRST = (4096, 512)  # what the first sweeps take
FIRST_SWEEPS = 2
LONGEST = 16384  # samples; in a longer gap nothing can be predicted but its ends
MARGIN = 2 * max(CONTEXTS)[0]  # samples on each side of a gap that may have a say in how it is filled
DOUBT = 2.0  # a candidate that less than 1 / DOUBT of its prediction would have served better is shrunk


def fill(signal, gaps, network=None):
    """The signal with its gaps filled, (T,), float64: nothing else is changed.

    Janssen's autoregression (see `baselines.autoregress`) a gap at a time, in three sweeps, so that each is seen by its
    neighbours as it has been filled; coefficients are those of the Hann-tapered context. network: an estimate (T,) of
    the whole signal, or None; it, and half of it with the autoregression of what that leaves, are then candidates too.
    How far each can be trusted, artificial gaps beside it tell. A gap longer than LONGEST is the network's, or 0.
    """
    filled = np.array(signal, float)
    for first, end in gaps:
        filled[first:end] = 0 if network is None or end - first <= LONGEST else network[first:end]
    short = [number for number, (first, end) in enumerate(gaps) if 0 < end - first <= LONGEST]
    for number in FIRST_SWEEPS * short:
        filled[slice(*gaps[number])] = autoregress(filled, [gaps[number]], *FIRST)[0]
    for number in short:
        filled[slice(*gaps[number])] = _best(filled, gaps, number, network)
    return filled


def autoregress(signal, gaps, context, order):
    """Estimates of gaps near each other, a list of (end - first,), by an autoregression of that order.

    Its coefficients are fitted to the signal as it stands, gaps included, from `context` samples before the first gap
    to as many behind the last, under a Hann window, which leaks less than none (autocorrelation method). Each gap has
    the values that leave the least excitation, the rest of the signal as it stands.
    """
    start, stop = max(gaps[0][0] - context, 0), min(gaps[-1][1] + context, signal.size)
    coefficients = _coefficients(signal[start:stop], min(order, (stop - start) // 3))
    return [_interpolate(signal, first, end, coefficients) for first, end in gaps]


def _coefficients(signal, order):
    """Of the filter whose output is the excitation, 1 first: (T,) -> (order + 1,)."""
    tapered = signal * np.hanning(signal.size + 2)[1:-1]
    size = scipy.fft.next_fast_len(signal.size + order + 1, real=True)
    correlation = scipy.fft.irfft(np.abs(scipy.fft.rfft(tapered, size)) ** 2, size)[: order + 1]
    if order < 1 or correlation[0] <= 0:
        return np.ones(1)
    correlation[0] *= 1 + 1e-9  # a pure tone would leave the system singular
    return np.append(1, scipy.linalg.solve_toeplitz(correlation[:-1], -correlation[1:]))


def _interpolate(signal, first, end, coefficients):
    """The values of signal[first:end] of least excitation; near either end of the signal, a mere continuation."""
    order, size = coefficients.size - 1, end - first
    if not order:
        return np.zeros(size)
    before, behind = signal[max(first - order, 0) : first], signal[end : end + order]
    if min(before.size, behind.size) < order / 4:
        backwards = behind.size > before.size
        state = scipy.signal.lfiltic([1], coefficients, behind if backwards else before[::-1])  # the nearest first
        ahead = scipy.signal.lfilter([1], coefficients, np.zeros(size), zi=state)[0]
        return ahead[::-1] if backwards else ahead
    # The excitation's energy is quadratic in the samples, with the coefficients' autocorrelation as its matrix.
    energy = scipy.signal.correlate(coefficients, coefficients)
    known = np.concatenate([before, np.zeros(size), behind])
    slope = scipy.signal.oaconvolve(known, energy)[order + before.size :][:size]
    bands = np.repeat(energy[order:, None], size, 1)[:size]
    return scipy.linalg.solveh_banded(bands, -slope, overwrite_ab=True, lower=True, check_finite=False)


def _best(signal, gaps, number, network):
    """What to fill a gap with, the signal's other gaps filled for now: (end - first,)."""
    judged = _artificial(gaps, number, signal.size)
    truth = np.concatenate([signal[first:end] for first, end in judged] or [np.zeros(0)])
    estimates, predictions = [], []
    for share in (0,) if network is None else (0, 0.5, 1):
        drawn = np.zeros(signal.size) if network is None else share * network
        for context, order in CONTEXTS if share < 1 else [(0, 0)]:
            estimate, prediction = _candidate(signal, drawn, gaps[number], judged, context, order)
            estimates.append(estimate)
            predictions.append(prediction)
    return _mixed(np.array(estimates), np.array(predictions), truth)


def _candidate(signal, drawn, gap, judged, context, order):
    """What `drawn` and an autoregression of what it leaves make of a gap, and of the artificial ones: (M,), (J,)."""
    start, stop = max(gap[0] - MARGIN, 0), gap[1] + MARGIN
    drawn = drawn[start:stop]
    left = signal[start:stop] - drawn
    gap, *judged = ([first - start, end - start] for first, end in (gap, *judged))
    estimate = autoregress(left, [gap], context, order)[0]
    left[slice(*gap)] = estimate
    for stretch in judged:
        left[slice(*stretch)] = 0
    predictions = autoregress(left, judged, context, order) if judged else []
    predictions = [drawn[slice(*stretch)] + part for stretch, part in zip(judged, predictions)]
    return drawn[slice(*gap)] + estimate, np.concatenate(predictions or [np.zeros(0)])


def _artificial(gaps, number, samples):
    """Stretches of what is observed on both sides of a gap, as long as it is and as far away, if there is room."""
    first, end = gaps[number]
    before = gaps[number - 1][1] if number else 0
    behind = gaps[number + 1][0] if number + 1 < len(gaps) else samples
    left, right = (min(end - first, room // 3) for room in (first - before, behind - end))
    stretches = [(first - 2 * left, first - left), (end + right, end + 2 * right)]
    return [stretch for stretch in stretches if stretch[1] > stretch[0]]


def _mixed(estimates, predictions, truth):
    """Estimates of a gap (K, M) mixed as their predictions (K, J) of the truth (J,) deserve: (M,).

    Weights are errors to the power of -1.5. A prediction that a factor below 1 / DOUBT would have served best shrinks
    its estimate, the more the nearer to 0 it is: noise is not continued.
    """
    energy = np.maximum((predictions**2).sum(1), 1e-300)
    factors = np.clip(DOUBT * (predictions @ truth) / energy, 0, 1) if truth.any() else np.ones(len(estimates))
    errors = ((factors[:, None] * predictions - truth) ** 2).sum(1)
    weights = ((errors.min() + 1e-300) / (errors + 1e-300)) ** 1.5
    return weights / weights.sum() @ (factors[:, None] * estimates)
