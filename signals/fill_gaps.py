"""Fill the gaps of a recording one at a time, by autoregression from the sound on both sides.

Signals are (T,). Gaps are stretches [first, end) of samples, (n, 2), sorted and disjoint.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autoregression import fit, interpolate
from signals.gaps import inside

# Pairs of context on each side of a gap and order, in seconds. Drafts use the first pair.
CONTEXTS = (0.064, 0.016), (0.032, 0.008), (0.128, 0.024), (0.256, 0.032)
MAX_ORDER = 512  # maximum order, or the gap's length if greater; more helps only steady tones
DRAFT_ITERATIONS = 2  # iterations of Janssen's method for a draft; each context then adds one
MAX_GAP_SECONDS = 0.25  # maximum; the middle of a longer gap cannot be predicted from its ends
MAX_GAPS_NEARBY = 8  # maximum number in the first context; with more, too little is observed
MAX_FRACTION_MISSING = 0.5  # maximum in the first context, without the gap itself; same reason
MERGE_FRACTION = 0.25  # two gaps are merged if closer than this fraction of the shorter one
CONTEXT_SHARPNESS = 3  # a context's weight is its inverse squared error to this power
FULL_GAIN = 0.5  # estimates are attenuated if their gain in artificial gaps is lower


def fill(signal, gaps, rate):
    """Fill the gaps of a signal (T,). Gaps that cannot be filled keep their values."""
    missing = inside(np.reshape(gaps, (-1, 2)), 0, len(signal))
    known = np.where(missing, 0.0, signal)
    filled = np.where(missing, signal, known)
    for first, end, values in fill_each(lambda a, b: known[a:b], gaps, known.size, rate):
        if values is not None:
            filled[first:end] = np.where(missing[first:end], values, known[first:end])
    return filled


def fill_each(read, gaps, samples, rate):
    """Fill the gaps of a signal at `rate` Hz in order. Yields (first, end, values) for each gap.

    read(first, end) returns samples of the signal, 0 in gaps. `samples` is the signal's length.
    Values are (end - first,), or None if a gap is too long or has too many others nearby. Gaps that
    almost touch are merged. When a gap is filled, gaps before it have final values and gaps after
    it have drafts. Neither values nor memory depend on the signal's length.
    """
    starts, ends = np.reshape(_merged(gaps), (-1, 2)).T.tolist()
    sound = _PartlyFilled(read, samples, starts, ends)
    contexts = _contexts(rate)
    (draft_context, draft_order), longest = contexts[0], contexts[-1][0]
    drafted = oldest = 0
    for number, (first, end) in enumerate(zip(sound.starts, sound.ends)):
        reach = longest + draft_order + 2 * (end - first)  # of artificial gaps and their contexts
        while drafted < len(sound.starts) and sound.starts[drafted] < end + reach:
            if sound.can_fill(drafted, draft_context, rate):
                gap, window, _ = sound.around(drafted, draft_context)
                draft = _draft(window, [gap], draft_context, draft_order)
                sound.values[drafted] = draft[slice(*gap)]
            drafted += 1
        if number in sound.values:
            gap, window, free = sound.around(number, reach)
            artificial = _artificial_beside(*gap, *free, max(end - first, draft_order))
            sound.values[number] = _mixture(window, gap, artificial, _contexts(rate, end - first))
        yield first, end, sound.values.get(number)
        while sound.ends[oldest] < first - 2 * longest - 2 * MAX_GAP_SECONDS * rate:
            sound.values.pop(oldest, None)  # no later gap needs it
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
    """Convert CONTEXTS to samples, for a gap of `size` samples. Returns [(context, order)].

    A context shorter than the gap cannot predict its middle, so it is left out.
    """
    highest = max(MAX_ORDER, size)
    contexts = [(round(c * rate), max(1, min(round(p * rate), highest))) for c, p in CONTEXTS]
    return [each for each in contexts if each[0] >= size] or contexts[-1:]


@dataclass
class _PartlyFilled:
    """A signal whose gaps are filled one after the other by `fill_each`."""

    read: Callable
    samples: int
    starts: list
    ends: list
    values: dict = field(default_factory=dict)  # {number of the gap: draft or final values}

    def around(self, number, context):
        """Cut out a window (T,) with `context` samples on each side of a gap.

        Returns the gap, the window with the values found so far, and the stretch from the end of
        the previous gap to the start of the next. Both stretches are indices into the window.
        """
        first, end = self.starts[number], self.ends[number]
        start, stop = max(first - context, 0), min(end + context, self.samples)
        window = np.array(self.read(start, stop), float)
        for other in self._between(start, stop):
            skipped = max(start - self.starts[other], 0)
            part = window[self.starts[other] + skipped - start : self.ends[other] - start]
            part[:] = self.values[other][skipped:][: part.size] if other in self.values else 0
        previous = self.ends[number - 1] if number else 0
        following = self.starts[number + 1] if number + 1 < len(self.starts) else self.samples
        free = max(start, previous) - start, min(stop, following) - start
        return (first - start, end - start), window, free

    def can_fill(self, number, context, rate):
        """Return True if a gap is short enough and enough samples around it are observed."""
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
        """Return the numbers of the gaps that overlap [start, stop), as a range."""
        return range(bisect.bisect_right(self.ends, start), bisect.bisect_left(self.starts, stop))


def _artificial_beside(first, end, before, after, distance):
    """Choose an artificial gap on each side of a gap. Returns at most two, as [(first, end)].

    They are as long as the gap and `distance` samples away from it, within the observed samples
    from `before` to `after`. On a side with few samples, the artificial gap is nearer and takes up
    at most a third of them.
    """
    left, right = (min(end - first, room // 3) for room in (first - before, after - end))
    stop = first - min(distance, first - before - 2 * left)
    start = end + min(distance, after - end - 2 * right)
    both = (stop - left, stop), (start, start + right)
    return [(first, end) for first, end in both if end > first]


def _mixture(window, gap, artificial, contexts):
    """Estimate a gap in a window (T,) by mixing the estimates from all contexts. Returns (M,).

    The weights come from the errors in artificial gaps, [(first, end)]. During this test the real
    gap is emptied too, because its draft used samples that the artificial gaps hide.
    """
    estimates = np.stack([_estimates(window, [gap], *context)[0] for context in contexts])
    if not artificial:
        return estimates[0]
    blank = _draft(window, [*artificial, gap], *contexts[0])
    predictions = np.stack([np.concatenate(_estimates(blank, artificial, *c)) for c in contexts])
    truth = np.concatenate([window[first:end] for first, end in artificial])
    weights = mixture_weights(((predictions - truth) ** 2).sum(1) + 1e-30, CONTEXT_SHARPNESS)
    prediction, estimate = (weights @ values / weights.sum() for values in (predictions, estimates))
    # Unrelated signals have an inner product of about this size by chance.
    chance = np.linalg.norm(prediction) * np.linalg.norm(truth) / np.sqrt(truth.size)
    gain = (prediction @ truth - chance) / max(prediction @ prediction, 1e-30)
    return estimate * np.clip(gain / FULL_GAIN, 0, 1)


def mixture_weights(errors, sharpness):
    """Return weights of candidates: inverse errors to the power `sharpness`, 1 for the best."""
    return (errors.min() / errors) ** sharpness


def _draft(signal, gaps, context, order):
    """Fill neighboring gaps by Janssen's method, starting from zeros: (T,) -> (T,)."""
    signal = signal.copy()
    for first, end in gaps:
        signal[first:end] = 0
    for _ in range(DRAFT_ITERATIONS):
        for (first, end), values in zip(gaps, _estimates(signal, gaps, context, order)):
            signal[first:end] = values
    return signal


def _estimates(signal, gaps, context, order):
    """Estimate neighboring gaps by one iteration. Returns a list of values (end - first,).

    The filter is fitted to the signal from `context` samples before the first gap to `context`
    samples after the last, with the present values in the gaps. A Hann window reduces spectral
    leakage, which improves the continuation of tones by 4 to 8 dB.
    """
    start = max(min(first for first, _ in gaps) - context, 0)
    stop = min(max(end for _, end in gaps) + context, signal.size)
    taper = np.hanning(stop - start + 2)[1:-1]
    coefficients = fit(signal[start:stop], min(order, (stop - start) // 3), taper)
    return [interpolate(signal, first, end, coefficients) for first, end in gaps]
