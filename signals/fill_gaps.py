"""Fill the gaps of a recording, one at a time, as autoregressive processes would continue what is on both sides.

Signals are (T,), any unit; gaps are stretches (n, 2) of samples, [first, end), sorted and apart.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy  # its parts load when first used: --help needs none of them

from signals.gaps import inside

WAYS = (
    (0.064, 0.016),
    (0.032, 0.008),
    (0.128, 0.024),
    (0.256, 0.032),
)  # s: context on each side, and memory
MOST_ORDER = 512  # or as many as are missing; more helps steady tones alone
SWEEPS = 2  # of coefficients and samples in turn from nothing; then one more in each way
LONGEST = 0.25  # seconds; of a longer gap nothing but its ends can be told
MOST_NEAR, MOST_MISSING = (
    8,
    0.5,
)  # gaps in the first way's context, and their share of it: with more it is no context
BETWEEN = 0.25  # of the shorter of two gaps: if as little is observed between them, they are filled as one
SHARPNESS = 3  # a way's weight is the inverse of its error in artificial gaps to this power
DOUBT = 2.0  # an estimate is shrunk if less than 1 / DOUBT of it would have been best in artificial gaps: noise


def fill(signal, gaps, rate):
    """The signal with those gaps filled that `fill_each` can fill, and zeros in the others: (T,), float64."""
    missing = inside(np.reshape(gaps, (-1, 2)), 0, len(signal))
    filled = np.where(missing, 0.0, signal)
    known = filled.copy()
    for first, end, values in fill_each(
        lambda start, stop: known[start:stop], gaps, known.size, rate
    ):
        if values is not None:
            filled[first:end] = np.where(missing[first:end], values, known[first:end])
    return filled


def fill_each(read, gaps, samples, rate):
    """What to fill gaps with, one after the other: first, end, values (end - first,), any rate in Hz.

    read(first, end): the samples of a signal of so many, 0 in its gaps. Values are None where the gap is too long or
    others are too near. Gaps with next to nothing between them come as one. Each is filled when those before it have
    been, and those behind it have drafts: neither values nor memory depend on how long the signal is.
    """
    sound = _Sound(read, samples, *np.reshape(_joined(gaps), (-1, 2)).T.tolist())
    ways, drafted, oldest = _ways(rate), 0, 0
    for number, (first, end) in enumerate(zip(sound.starts, sound.ends)):
        while drafted < len(sound.starts) and sound.starts[drafted] < end + ways[-1][0] + ways[0][
            1
        ] + 2 * (end - first):
            if sound.can_fill(drafted, ways[0][0], rate):
                gap, window, _ = sound.around(drafted, ways[0][0])
                sound.values[drafted] = _draft(window, [gap], *ways[0])[slice(*gap)]
            drafted += 1
        if number in sound.values:
            gap, window, free = sound.around(number, ways[-1][0] + ways[0][1] + 2 * (end - first))
            judged = _artificial(*gap, *free, max(end - first, ways[0][1]))
            sound.values[number] = _mixed(window, gap, judged, _ways(rate, end - first))
        yield first, end, sound.values.get(number)
        while sound.ends[oldest] < first - 2 * ways[-1][0] - 2 * LONGEST * rate:
            sound.values.pop(oldest, None)
            oldest += 1


def _joined(gaps):
    joined = []
    for first, end in gaps:
        if joined and first - joined[-1][1] <= BETWEEN * min(end - first, np.ptp(joined[-1])):
            first = joined.pop()[0]
        joined.append((first, end))
    return joined


def _ways(rate, size=0):
    """Context and order of each way to fill a gap of that size, samples."""
    most = max(MOST_ORDER, size)
    return [
        (round(context * rate), max(1, min(round(memory * rate), most))) for context, memory in WAYS
    ]


@dataclass
class _Sound:
    """A signal that is filled bit by bit."""

    read: Callable
    samples: int
    starts: list
    ends: list
    values: dict = field(default_factory=dict)  # {number of the gap: values}, as far as filled

    def around(self, number, context):
        """A gap in a window about it, [first, end); that window as filled so far; between which gaps it is, there."""
        first, end = self.starts[number], self.ends[number]
        start, stop = max(first - context, 0), min(end + context, self.samples)
        window = np.array(self.read(start, stop), float)
        for other in self._near(start, stop):
            begun = max(start - self.starts[other], 0)
            part = window[self.starts[other] + begun - start : self.ends[other] - start]
            part[:] = self.values[other][begun:][: part.size] if other in self.values else 0
        before = self.ends[number - 1] if number else 0
        behind = self.starts[number + 1] if number + 1 < len(self.starts) else self.samples
        return (
            (first - start, end - start),
            window,
            (max(before, start) - start, min(behind, stop) - start),
        )

    def can_fill(self, number, context, rate):
        """Whether a gap is short enough and enough is observed about it."""
        size, start, stop = (
            self.ends[number] - self.starts[number],
            self.starts[number] - context,
            self.ends[number] + context,
        )
        near = self._near(start, stop)
        missing = (
            sum(min(self.ends[other], stop) - max(self.starts[other], start) for other in near)
            - size
        )
        return (
            0 < size <= LONGEST * rate
            and len(near) <= MOST_NEAR
            and missing <= MOST_MISSING * 2 * context
        )

    def _near(self, start, stop):
        return range(bisect.bisect_right(self.ends, start), bisect.bisect_left(self.starts, stop))


def _artificial(first, end, before, behind, apart):
    """Stretches of what is observed on both sides of a gap, as long as it is and `apart` from it, if there is room."""
    left, right = (min(end - first, room // 3) for room in (first - before, behind - end))
    near, far = (
        first - min(apart, first - before - 2 * left),
        end + min(apart, behind - end - 2 * right),
    )
    return [
        stretch for stretch in ((near - left, near), (far, far + right)) if stretch[1] > stretch[0]
    ]


def _mixed(window, gap, judged, ways):
    """What to fill a gap with that has a draft, (M,): each way's estimate as it deserves by artificial gaps (J, 2).

    The gap is unknown to these too: its draft has been told what is on both sides.
    """
    estimates = np.stack([_autoregress(window, [gap], *way)[0] for way in ways])
    if not judged:
        return estimates[0]
    blank = _draft(window, [*judged, gap], *ways[0])
    predictions = np.stack(
        [np.concatenate(_autoregress(blank, [*judged, gap], *way)[:-1]) for way in ways]
    )
    truth = np.concatenate([window[first:end] for first, end in judged])
    errors = ((predictions - truth) ** 2).sum(1) + 1e-30
    weights = (errors.min() / errors) ** SHARPNESS
    prediction, estimate = (weights @ values / weights.sum() for values in (predictions, estimates))
    # The product of what is unrelated, by chance.
    chance = np.linalg.norm(prediction) * np.linalg.norm(truth) / np.sqrt(truth.size)
    return estimate * np.clip(
        DOUBT * (prediction @ truth - chance) / max(prediction @ prediction, 1e-30), 0, 1
    )


def _draft(signal, gaps, context, order):
    """The signal, (T,), with gaps that are near each other filled from nothing (Janssen's iterations)."""
    signal, estimates = signal.copy(), [0] * len(gaps)
    for sweep in range(SWEEPS + 1):
        estimates = _autoregress(signal, gaps, context, order) if sweep else estimates
        for gap, values in zip(gaps, estimates):
            signal[slice(*gap)] = values
    return signal


def _autoregress(signal, gaps, context, order):
    """Estimates of gaps near each other, a list of (end - first,), by an autoregression of that order.

    Its coefficients are fitted to the signal as it stands, gaps included, from `context` samples before the first gap
    to as many behind the last.
    """
    start, stop = max(min(gaps)[0] - context, 0), min(max(gaps)[1] + context, signal.size)
    coefficients = fit(signal[start:stop], min(order, (stop - start) // 3))
    return [interpolate(signal, first, end, coefficients) for first, end in gaps]


def fit(signal, order):
    """Coefficients of the filter whose output is the excitation, 1 first: (T,) -> (order + 1,).

    Autocorrelation method, under a Hann window: it leaks less than none, and tones continue 4 to 8 dB better.
    """
    tapered = signal * np.hanning(signal.size + 2)[1:-1]
    size = scipy.fft.next_fast_len(signal.size + order + 1, real=True)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(tapered, size)) ** 2, size)[: order + 1]
    if order < 1 or correlation[0] <= 1e-30:
        return np.ones(1)
    correlation[0] *= 1 + 1e-9  # a pure tone would leave the system singular
    return np.append(1, scipy.linalg.solve_toeplitz(correlation[:-1], -correlation[1:]))


def interpolate(signal, first, end, coefficients):
    """The values of signal[first:end] of least excitation, (end - first,); near the signal's ends, its continuation.

    Janssen, Veldhuis, Vries 1986 (doi 10.1109/TASSP.1986.1164824): the excitation's energy is quadratic in the samples,
    with the coefficients' autocorrelation as its matrix.
    """
    order, size = coefficients.size - 1, end - first
    before, behind = signal[max(first - order, 0) : first], signal[end : end + order]
    if min(before.size, behind.size) < order / 4:
        backwards = behind.size > before.size
        state = scipy.signal.lfiltic(
            [1], coefficients, behind if backwards else before[::-1]
        )  # the nearest first
        ahead = scipy.signal.lfilter([1], coefficients, np.zeros(size), zi=state)[0]
        return ahead[::-1] if backwards else ahead
    known = np.concatenate([before, np.zeros(size), behind])
    length = scipy.fft.next_fast_len(known.size + order, real=True)
    power = np.abs(np.fft.rfft(coefficients, length)) ** 2
    slope = np.fft.irfft(np.fft.rfft(known, length) * power, length)[before.size :][:size]
    return scipy.linalg.solve_toeplitz(np.fft.irfft(power, length)[:size], -slope)
