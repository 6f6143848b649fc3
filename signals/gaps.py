"""Find the gaps and clicks in a sound, and mark the samples inside them.

Stretches [first, end) of samples are arrays (n, 2).
"""

import bisect

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

PIECE = 1 << 16  # samples searched at once
GAP_SECONDS = 0.001  # minimum duration; shorter runs of zeros are zero crossings of a quiet sound
GAP_JUMP = 0.01  # minimum jump at a gap's edge, relative to the sound nearby; excludes fade-outs
GAP_STEPS = 3  # the same in quantization steps; excludes slow zero crossings, dither and pulses
DITHER = 10  # maximum magnitude of noise-shaped dither in a gap, in quantization steps
DITHER_SAMPLES = 16  # then the minimum duration
CLICK = 6  # minimum magnitude of a click, relative to the RMS nearby; noise rarely reaches it
CLICK_SECONDS = 0.001, 0.016  # maximum duration of a click; duration of the sound nearby


def find_gaps(read, samples, rate, longest, zero=0.0, step=0.0):
    """Find the gaps and the silences in a sound of `samples` samples at `rate` Hz.

    read(first, end) returns samples. Gaps and silences are runs of at least GAP_SECONDS in which no
    magnitude exceeds `zero`. A gap has at most `longest` samples, has sound on both sides, and
    begins or ends with a jump. The jump is compared with `longest` samples on each side, so sounds
    elsewhere have no influence. Longer runs, and those at the beginning and the end of the sound,
    are silences. Returns the gaps, the silences, and how many silences begin and end with a jump:
    these may be long gaps.

    An editor may have added dither after the gaps were cut. So runs of at most DITHER quantization
    steps (`step`, if known) are gaps instead if there are more of them. They must both begin and
    end with a jump, which a quiet passage does not.
    """
    at, jumps, least = _runs(read, samples, rate, longest, zero)
    outer, long = (at[:, 0] == 0) | (at[:, 1] == samples), np.ptp(at, axis=1) > longest
    cut = jumps >= least[:, None]
    gaps, silences = at[~outer & ~long & cut.any(1)], at[outer | long]
    abrupt = int(np.count_nonzero(~outer & long & cut.all(1)))
    if step:
        at, jumps, least = _runs(read, samples, rate, longest, DITHER * step)
        size = np.ptp(at, axis=1)
        dithered = (DITHER_SAMPLES <= size) & (size <= longest) & (jumps.min(1) >= least)
        gaps = max(gaps, at[dithered], key=len)
    return gaps, silences, abrupt


def _runs(read, samples, rate, longest, zero):
    """Find all runs of at least GAP_SECONDS in which no magnitude exceeds `zero`.

    Returns their first sample and end (n, 2), the jumps there (n, 2) and the least jump of a gap
    (n,).
    """
    edges = []
    for first in range(0, samples, PIECE):
        edges += _edges(read, first, samples, GAP_SECONDS * rate, round(longest), zero)
    edges += [(samples, 0, 0, 0)] * (len(edges) % 2)  # the end of a run
    at, jumps, levels, steps = np.reshape(edges, (-1, 2, 4)).transpose(2, 0, 1)
    least = np.maximum(GAP_JUMP * levels.max(1), GAP_STEPS * steps.min(1))
    return at.astype(int), jumps, least


def _edges(read, first, samples, shortest, reach, zero):
    """Find the starts and ends of runs of at least `shortest` zeros in the piece from `first` on.

    Each edge is a tuple of its sample and the properties of up to `reach` samples of sound beside
    it, see `_sound_beside`.
    """
    margin = max(reach, round(shortest)) + 1
    start, end = max(first - margin, 0), first + PIECE
    values = read(start, min(end + margin, samples))
    silent = np.abs(values) <= zero
    # As if sound came before, a run can start at sample 0.
    at = np.flatnonzero(np.diff(silent, prepend=silent[0] and start > 0))
    runs = np.diff(at, prepend=-np.inf, append=np.inf)
    long = np.where(silent[at], runs[1:], runs[:-1]) >= shortest
    found = []
    for edge in at[long & (first <= at + start) & (at + start < end)]:
        before, after = values[max(edge - reach, 0) : edge][::-1], values[edge : edge + reach]
        found.append((edge + start, *_sound_beside(before if silent[edge] else after, zero)))
    return found


def _sound_beside(sound, zero):
    """Return the jump from silence to a sound (n,), its median magnitude and quantization step."""
    if not sound.size:
        return 0, 0, np.inf
    magnitudes = np.abs(sound)
    heard, changes = magnitudes[magnitudes > zero], np.abs(np.diff(sound))
    step = min(heard.min(), changes[changes > 2 * zero].min(initial=np.inf))
    return magnitudes[0], np.median(heard), step


def clicks(sound, observed, rate):
    """Return a mask of the samples that are much louder than the sound around them: (T,) -> (T,).

    observed (T,): 1 where the sound is known; it is 0 elsewhere.
    """
    energy, count = np.square(sound, dtype=float), np.asarray(observed, float)
    short, long = (round(seconds * rate) // 2 * 2 + 1 for seconds in CLICK_SECONDS)
    energy_near, count_near = (
        long * scipy.ndimage.uniform_filter1d(part, long, mode="mirror")
        - short * scipy.ndimage.uniform_filter1d(part, short, mode="mirror")
        for part in (energy, count)
    )
    loud = energy * count_near > CLICK**2 * np.maximum(energy_near, 0)
    return loud & (count_near > short)  # too little is known near an isolated sample


def inside(stretches, first, end):
    """Return a boolean mask (end - first,) of the samples in [first, end) that fall in a stretch.

    Both columns of the stretches must be sorted, because they are searched by bisection.
    """
    starts, ends = stretches.T
    near = slice(bisect.bisect_right(ends, first), bisect.bisect_left(starts, end))
    marked = np.zeros(end - first, bool)
    for start, stop in stretches[near] - first:
        marked[max(start, 0) : stop] = True
    return marked
