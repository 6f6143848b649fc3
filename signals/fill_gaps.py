"""Fill the gaps of a recording one at a time, by autoregression from the sound on both sides.

Signals are (T,), in any unit. Gaps are stretches [first, end) of samples, (n, 2), sorted and
disjoint.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autoregression import fit, interpolate
from signals.gaps import inside

CONTEXTS = (  # seconds used on each side of a gap, order in seconds; the first is for drafts
    (0.064, 0.016),
    (0.032, 0.008),
    (0.128, 0.024),
    (0.256, 0.032),
)
MAX_ORDER = 512  # samples, or the gap's length if greater; higher orders help only steady tones
DRAFT_ITERATIONS = 2  # of Janssen's method, from scratch; then each context adds one more
MAX_GAP_SECONDS = 0.25  # the middle of a longer gap cannot be predicted from its ends
MAX_GAPS_NEARBY = 8  # within the first context; with more, too little is observed between them
MAX_FRACTION_MISSING = 0.5  # of the first context, for the same reason
MERGE_FRACTION = 0.25  # of the shorter gap; two gaps that are closer are filled as one
SHARPNESS = 3  # power of the inverse error in the mixture of contexts
FULL_GAIN = 0.5  # least-squares gain in artificial gaps; below it an estimate is mostly noise


def fill(signal, gaps, rate):
    """Fill those gaps of a signal that `fill_each` can fill, the others with 0: (T,), float64."""
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
    """Yield first, end and values (end - first,) of one gap after the other, at `rate` in Hz.

    read(first, end): part of a signal of `samples` samples, 0 in its gaps. Values are None for a
    gap that is too long or has too many others nearby. Gaps with few samples between them are
    merged. When a gap is filled, those before it are final and those after it are drafts. Values
    and memory therefore do not depend on the signal's length.
    """
    sound = _PartlyFilled(read, samples, *np.reshape(_merged(gaps), (-1, 2)).T.tolist())
    contexts = _contexts(rate)
    (draft_context, draft_order), longest = contexts[0], contexts[-1][0]
    drafted = oldest = 0
    for number, (first, end) in enumerate(zip(sound.starts, sound.ends)):
        reach = longest + draft_order + 2 * (end - first)
        while drafted < len(sound.starts) and sound.starts[drafted] < end + reach:
            if sound.can_fill(drafted, draft_context, rate):
                gap, window, _ = sound.around(drafted, draft_context)
                draft = _draft(window, [gap], draft_context, draft_order)
                sound.values[drafted] = draft[slice(*gap)]
            drafted += 1
        if number in sound.values:
            gap, window, free = sound.around(number, reach)
            artificial = _beside(*gap, *free, max(end - first, draft_order))
            contexts = _contexts(rate, end - first)
            sound.values[number] = _mixture(window, gap, artificial, contexts)
        yield first, end, sound.values.get(number)
        while sound.ends[oldest] < first - 2 * longest - 2 * MAX_GAP_SECONDS * rate:
            sound.values.pop(oldest, None)
            oldest += 1


def _merged(gaps):
    merged = []
    for first, end in gaps:
        if merged:
            shorter = min(end - first, np.ptp(merged[-1]))
            if first - merged[-1][1] <= MERGE_FRACTION * shorter:
                first = merged.pop()[0]
        merged.append((first, end))
    return merged


def _contexts(rate, size=0):
    """CONTEXTS for a gap of `size` samples: [(context, order)], both in samples."""
    highest = max(MAX_ORDER, size)
    return [
        (round(context * rate), max(1, min(round(order * rate), highest)))
        for context, order in CONTEXTS
    ]


@dataclass
class _PartlyFilled:
    """A signal of `samples` samples whose gaps are filled one after the other."""

    read: Callable
    samples: int
    starts: list
    ends: list
    values: dict = field(default_factory=dict)  # {number of the gap: draft or final values}

    def around(self, number, context):
        """Cut out a gap with `context` samples on each side.

        Returns the gap within this window, the window as far as filled (T,), and the stretch of
        the window from the end of the previous gap to the start of the next.
        """
        first, end = self.starts[number], self.ends[number]
        start, stop = max(first - context, 0), min(end + context, self.samples)
        window = np.array(self.read(start, stop), float)
        for other in self._between(start, stop):
            skipped = max(start - self.starts[other], 0)
            part = window[self.starts[other] + skipped - start : self.ends[other] - start]
            part[:] = self.values[other][skipped:][: part.size] if other in self.values else 0
        last = number + 1 == len(self.starts)
        before = max(start, self.ends[number - 1] if number else 0)
        after = stop if last else min(stop, self.starts[number + 1])
        return (first - start, end - start), window, (before - start, after - start)

    def can_fill(self, number, context, rate):
        """Return True if a gap is short enough and enough is observed around it."""
        first, end = self.starts[number], self.ends[number]
        start, stop = first - context, end + context
        nearby = self._between(start, stop)
        missing = sum(min(self.ends[i], stop) - max(self.starts[i], start) for i in nearby)
        return (
            0 < end - first <= MAX_GAP_SECONDS * rate
            and len(nearby) <= MAX_GAPS_NEARBY
            and missing - (end - first) <= MAX_FRACTION_MISSING * 2 * context
        )

    def _between(self, start, stop):
        """Numbers of the gaps that overlap [start, stop)."""
        return range(bisect.bisect_right(self.ends, start), bisect.bisect_left(self.starts, stop))


def _beside(first, end, before, after, distance):
    """Artificial gaps on both sides of a gap: [(first, end)], at most two.

    They are as long as the gap and `distance` samples away from it. If the observed room, from
    `before` to `after`, is small, they are nearer and at most a third of it.
    """
    left, right = (min(end - first, room // 3) for room in (first - before, after - end))
    stop = first - min(distance, first - before - 2 * left)
    start = end + min(distance, after - end - 2 * right)
    both = (stop - left, stop), (start, start + right)
    return [(first, end) for first, end in both if end > first]


def _mixture(window, gap, artificial, contexts):
    """Values for a gap of a window (T,): a mixture of the estimates from each context, (M,).

    The weights come from the errors in artificial gaps (J, 2). The real gap is missing there as
    well, because its draft has seen the samples of the artificial ones.
    """
    estimates = np.stack([_estimates(window, [gap], *context)[0] for context in contexts])
    if not artificial:
        return estimates[0]
    gaps = [*artificial, gap]
    blank = _draft(window, gaps, *contexts[0])
    predictions = np.stack(
        [np.concatenate(_estimates(blank, gaps, *context)[:-1]) for context in contexts]
    )
    truth = np.concatenate([window[first:end] for first, end in artificial])
    weights = mixture_weights(((predictions - truth) ** 2).sum(1) + 1e-30, SHARPNESS)
    prediction, estimate = (weights @ values / weights.sum() for values in (predictions, estimates))
    # Unrelated signals have a product of about this size by chance.
    chance = np.linalg.norm(prediction) * np.linalg.norm(truth) / np.sqrt(truth.size)
    gain = (prediction @ truth - chance) / max(prediction @ prediction, 1e-30)
    return estimate * np.clip(gain / FULL_GAIN, 0, 1)


def mixture_weights(errors, sharpness):
    """Relative weights of candidates from their errors, 1 for the best: (W,) -> (W,).

    They are the inverse errors to the power `sharpness`.
    """
    return (errors.min() / errors) ** sharpness


def _draft(signal, gaps, context, order):
    """Fill gaps that are near each other from scratch, by Janssen's iterations: (T,) -> (T,)."""
    signal = signal.copy()
    for first, end in gaps:
        signal[first:end] = 0
    for _ in range(DRAFT_ITERATIONS):
        for (first, end), values in zip(gaps, _estimates(signal, gaps, context, order)):
            signal[first:end] = values
    return signal


def _estimates(signal, gaps, context, order):
    """One more iteration for gaps near each other: a list of (end - first,).

    The autoregression is fitted to the signal as it is, gaps included, from `context` samples
    before the first gap to `context` samples after the last. Under a Hann window, which leaks less
    than none, tones continue 4 to 8 dB better.
    """
    start = max(min(first for first, _ in gaps) - context, 0)
    stop = min(max(end for _, end in gaps) + context, signal.size)
    taper = np.hanning(stop - start + 2)[1:-1]
    coefficients = fit(signal[start:stop], min(order, (stop - start) // 3), taper)
    return [interpolate(signal, first, end, coefficients) for first, end in gaps]
