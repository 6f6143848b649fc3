"""Autoregressive interpolation of missing samples (Janssen, Veldhuis and Vries 1986).

In the model, a filter whose first coefficient is 1 turns the signal into a small excitation.
`fit` estimates the filter. The missing samples are chosen to minimize the excitation's energy.
Alternating these steps improves both results (doi 10.1109/TASSP.1986.1164824).
"""

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast


def fit(signal, order, taper=1.0):
    """Return a signal's filter coefficients by the autocorrelation method: (T,) -> (order + 1,).

    taper: window function (T,).
    """
    length = scipy.fft.next_fast_len(signal.size + order + 1, real=True)
    power = np.abs(np.fft.rfft(signal * taper, length)) ** 2
    correlation = np.fft.irfft(power, length)[: order + 1]
    if order < 1 or correlation[0] <= 1e-30:
        return np.ones(1)
    correlation[0] *= 1 + 1e-9  # keeps the system regular for a pure tone
    return np.append(1, scipy.linalg.solve_toeplitz(correlation[:-1], -correlation[1:]))


def interpolate(signal, first, end, coefficients):
    """Return values (end - first,) for signal[first:end] that minimize the excitation's energy.

    Only `order` samples on each side of the gap matter. If one side has fewer than a quarter of
    them, the other side is extrapolated instead.
    """
    order, size = coefficients.size - 1, end - first
    before, after = signal[max(first - order, 0) : first], signal[end : end + order]
    if min(before.size, after.size) < order / 4:
        if after.size > before.size:
            return _extrapolate(after[::-1], size, coefficients)[::-1]
        return _extrapolate(before, size, coefficients)
    known = np.concatenate([before, np.zeros(size), after])
    length = scipy.fft.next_fast_len(known.size + order, real=True)
    power = np.abs(np.fft.rfft(coefficients, length)) ** 2
    gradient = np.fft.irfft(np.fft.rfft(known, length) * power, length)[before.size :][:size]
    return scipy.linalg.solve_toeplitz(np.fft.irfft(power, length)[:size], -gradient)


def _extrapolate(signal, size, coefficients):
    """Predict the next `size` samples of a signal, assuming no excitation."""
    state = scipy.signal.lfiltic([1], coefficients, signal[::-1])  # latest sample first
    return scipy.signal.lfilter([1], coefficients, np.zeros(size), zi=state)[0]


def interpolate_scattered(signal, missing, coefficients):
    """Return values (M,) for the indices `missing` (M,) that minimize the excitation's energy.

    This energy is a quadratic form in the samples. Its matrix holds the autocorrelation of the
    coefficients.
    """
    order = coefficients.size - 1
    correlation = np.correlate(coefficients, coefficients, "full")
    known = signal.copy()
    known[missing] = 0
    gradient = np.convolve(known, correlation, "same")[missing]  # needs T >= 2 order + 1
    by_lag = np.pad(correlation[order:], (0, signal.size - order - 1))
    matrix = by_lag[np.abs(missing[:, None] - missing)]
    factors = scipy.linalg.cho_factor(matrix, check_finite=False)
    return scipy.linalg.cho_solve(factors, -gradient, check_finite=False)
